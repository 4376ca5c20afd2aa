//! The families of addresses that a Service or a pod has.

/// Families of addresses; IPv4 alone unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both, IPv4 first.
    Dual,
}

impl Families {
    /// The addresses for what would have `v4` alone: 10.96.0.5 and fd00:10:96::5 belong together.
    pub(crate) fn addresses(self, v4: &str) -> Vec<String> {
        let mut parts = v4.split('.').map(|part| part.parse().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0_u16);
        let (a, b, c, d) = (part(), part(), part(), part());
        let v6 = match c {
            0 => format!("fd00:{a}:{b}::{d:x}"),
            c => format!("fd00:{a}:{b}::{c:x}:{d:x}"),
        };
        match self {
            Self::V4 => vec![v4.to_owned()],
            Self::V6 => vec![v6],
            Self::Dual => vec![v4.to_owned(), v6],
        }
    }

    /// The API's words for them.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["IPv4"],
            Self::V6 => &["IPv6"],
            Self::Dual => &["IPv4", "IPv6"],
        }
    }

    /// `ipFamilyPolicy` of a Service.
    pub(crate) fn policy(self) -> &'static str {
        match self {
            Self::V4 | Self::V6 => "SingleStack",
            Self::Dual => "RequireDualStack",
        }
    }
}
