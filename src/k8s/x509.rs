//! The little of X.509 (RFC 5280) that explains why a certificate is refused. Nothing is verified.

/// The tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// The tag of the optional version that a certificate may begin with.
const VERSION: u8 = 0xa0;
/// The longest name that is shown: its text is the server's.
const MAX_NAME: usize = 100;

/// The first element of DER: its tag, its content, and what follows it.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let digits = rest.get(..usize::from(first & 0x7f))?;
        rest = rest.get(digits.len()..)?;
        digits.iter().try_fold(0usize, |n, &digit| {
            n.checked_mul(256)?.checked_add(usize::from(digit))
        })?
    };
    let content = rest.get(..length)?;
    Some((tag, content, rest.get(length..)?))
}

/// What a certificate says from its issuer on.
pub(super) fn from_issuer(der: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&VERSION) {
        (_, _, rest) = element(rest)?;
    }
    // Serial number, signature algorithm.
    for _ in 0..2 {
        (_, _, rest) = element(rest)?;
    }
    Some(rest)
}

/// The issuer's common name and organization, at most 100 characters, without control characters.
pub(super) fn issuer(der: &[u8]) -> Option<String> {
    /// id-at-commonName, 2.5.4.3.
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    /// id-at-organizationName, 2.5.4.10.
    const ORGANIZATION: &[u8] = &[0x55, 4, 10];
    let (SEQUENCE, mut names, _) = element(from_issuer(der)?)? else {
        return None;
    };
    let (mut common, mut organization) = (None, None);
    while let Some((_, set, rest)) = element(names) {
        names = rest;
        let (_, attribute, _) = element(set)?;
        let (_, kind, value) = element(attribute)?;
        let (_, text, _) = element(value)?;
        let text = || Some(String::from_utf8_lossy(text).into_owned());
        match kind {
            COMMON_NAME => common = text(),
            ORGANIZATION => organization = text(),
            _ => {}
        }
    }
    let name = match (common, organization) {
        (Some(common), Some(organization)) => format!("{common}, {organization}"),
        (one, other) => one.or(other)?,
    };
    let shown = name.chars().filter(|c| !c.is_control());
    Some(shown.take(MAX_NAME).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn a_certificate_names_its_issuer() {
        let mut params = CertificateParams::default();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Inspecting\u{1b} CA");
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Corp");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der();
        assert_eq!(issuer(der).as_deref(), Some("Inspecting CA, Corp"));
        for cut in 0..der.len() {
            assert_eq!(issuer(&der[..cut]), None);
        }
    }
}
