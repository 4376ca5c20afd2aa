//! absolute
