//! When credentials end, read from the credentials themselves, to explain why they are refused.
//! Nothing here is verified: that is the API server's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::jiff::Timestamp;
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use crate::k8s::x509::{SEQUENCE, element, from_issuer};

/// The end of what `auth` carries; `None` where it does not say.
pub(super) fn of(auth: &AuthInfo) -> Option<SystemTime> {
    let written = auth.token.as_ref().map(|t| t.expose_secret().to_owned());
    let token = match &auth.token_file {
        Some(file) => std::fs::read_to_string(file).ok(),
        None => written,
    };
    if let Some(token) = token {
        return of_token(token.trim());
    }
    let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
        (Some(data), _) => BASE64_STANDARD.decode(data.trim()).ok()?,
        (None, Some(file)) => std::fs::read(file).ok()?,
        (None, None) => return None,
    };
    of_certificate(&first_certificate(&String::from_utf8_lossy(&pem))?)
}

/// The `exp` of a JSON Web Token (RFC 7519, 4.1.4).
pub(in crate::k8s) fn of_token(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?;
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    let since = Duration::try_from_secs_f64(claims.exp).ok()?;
    UNIX_EPOCH.checked_add(since)
}

/// The first certificate of a PEM file, as DER.
fn first_certificate(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    BASE64_STANDARD.decode(body).ok()
}

/// The `notAfter` of a certificate (RFC 5280, 4.1).
fn of_certificate(der: &[u8]) -> Option<SystemTime> {
    const UTC_TIME: u8 = 0x17;
    let (_, _, rest) = element(from_issuer(der)?)?;
    let (SEQUENCE, validity, _) = element(rest)? else {
        return None;
    };
    let (_, _, after) = element(validity)?;
    let (kind, text, _) = element(after)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match (kind, text.get(..2)?.parse::<u8>().ok()?) {
        // Two digits of a year count from 1950.
        (UTC_TIME, 50..) => format!("19{text}"),
        (UTC_TIME, _) => format!("20{text}"),
        _ => text.to_owned(),
    };
    let part = |range| text.get(range);
    let time = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    );
    Some(time.parse::<Timestamp>().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(time: SystemTime) -> u64 {
        time.duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"me","exp":1700000000}"#);
        let end = of_token(&format!("e30.{payload}.c2ln")).unwrap();
        assert_eq!(seconds(end), 1_700_000_000);
        for other in ["dev-token", "a.b.c", "a.e30.c", ""] {
            assert_eq!(of_token(other), None, "{other}");
        }
    }

    #[test]
    fn a_certificate_says_when_it_ends() {
        let time = |kind: u8, text: &str| [&[kind, text.len() as u8], text.as_bytes()].concat();
        let wrap = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        for (kind, text, expected) in [
            (0x17, "261122130000Z", 1_795_352_400),
            (0x18, "20261122130000Z", 1_795_352_400),
            (0x17, "700101000001Z", 1),
        ] {
            let validity = wrap(
                0x30,
                &[time(0x17, "000101000000Z"), time(kind, text)].concat(),
            );
            let version = wrap(0xa0, &[2, 1, 2]);
            let head = [version, vec![2, 1, 7], vec![0x30, 0], vec![0x30, 0]].concat();
            let certificate = wrap(0x30, &wrap(0x30, &[head, validity].concat()));
            assert_eq!(seconds(of_certificate(&certificate).unwrap()), expected);
            for cut in 0..certificate.len() {
                assert_eq!(of_certificate(&certificate[..cut]), None);
            }
        }
    }
}
