//! kdev.
