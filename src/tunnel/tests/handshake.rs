//! Who is let in, and what the others are told.

use super::head::{Answer, Nonce, Proof, SessionId};
use super::identity::Ownership;
use super::proof::{Side, Transcript};
use super::*;

#[tokio::test]
async fn both_sides_prove_themselves_and_bytes_follow_at_once() {
    for role in [Role::Forward, Role::Reverse] {
        let (near, far) = duplex(NARROW);
        let identity = Identity::random();
        let secret = secret(if role == Role::Forward { 1 } else { 2 });
        let (kdev, relay) = tokio::join!(
            async {
                let (mut io, program) = connect(near, role, &identity, &secret).await.unwrap();
                assert_eq!(program, env!("CARGO_PKG_VERSION"));
                io.write_all(b"forth").await.unwrap();
                let mut back = [0; 4];
                io.read_exact(&mut back).await.unwrap();
                back
            },
            async {
                let mut accepted = accept(far, &keys(), admit).await.unwrap();
                accepted.io.write_all(b"back").await.unwrap();
                let mut forth = [0; 5];
                accepted.io.read_exact(&mut forth).await.unwrap();
                (accepted.hello, forth)
            }
        );
        assert_eq!(&kdev, b"back");
        assert_eq!(&relay.1, b"forth");
        assert_eq!((relay.0.role, relay.0.session), (role, identity.session()));
    }
}

#[tokio::test]
async fn a_secret_of_another_role_proves_nothing() {
    let (near, far) = duplex(4096);
    let identity = Identity::random();
    // The forward secret: its owner may not take reverse tunnels.
    let (known, relay_keys) = (secret(1), keys());
    let (kdev, relay) = tokio::join!(
        connect(near, Role::Reverse, &identity, &known),
        accept(far, &relay_keys, admit)
    );
    // The relay proves itself with the secret that kdev does not have, so kdev stops there.
    assert!(matches!(kdev, Err(HandshakeError::Impostor)), "{kdev:?}");
    assert!(relay.is_err());
}

#[tokio::test]
async fn a_proof_that_was_recorded_is_refused() {
    // What kdev says in a good handshake, recorded.
    let (near, mut tap) = duplex(4096);
    let (mut forth, far) = duplex(4096);
    let identity = Identity::random();
    let (known, relay_keys) = (secret(1), keys());
    let recording = async {
        let mut recorded = Vec::new();
        let mut buffer = [0; 4096];
        // Two messages from each side.
        for _ in 0..2 {
            let n = tap.read(&mut buffer).await.unwrap();
            recorded.push(buffer[..n].to_vec());
            forth.write_all(&buffer[..n]).await.unwrap();
            let n = forth.read(&mut buffer).await.unwrap();
            tap.write_all(&buffer[..n]).await.unwrap();
        }
        recorded
    };
    let (kdev, relay, recorded) = tokio::join!(
        connect(near, Role::Forward, &identity, &known),
        accept(far, &relay_keys, admit),
        recording
    );
    kdev.unwrap();
    relay.unwrap();
    let (mut again, far) = duplex(4096);
    again.write_all(&recorded.concat()).await.unwrap();
    let refused = accept(far, &keys(), admit).await.unwrap_err();
    let HandshakeError::Refused(refusal) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal.code, RefusalCode::Proof);
    let mut told = String::new();
    again.read_to_string(&mut told).await.unwrap();
    assert!(
        told.contains("refused") && told.contains("another secret"),
        "{told}"
    );
}

/// What the relay makes of a peer that knows the secret of its role and says it is `session`, where
/// the peer shows what `shows` makes of the handshake.
async fn shown(
    session: SessionId,
    shows: impl FnOnce(&Transcript) -> Option<Ownership>,
) -> (Result<Hello, HandshakeError>, String) {
    let (mut near, far) = duplex(4096);
    let hello = Hello::new(Role::Reverse, session);
    let peer = async {
        near.write_all(hello.encode().as_bytes()).await.unwrap();
        let mut buffer = [0; 4096];
        let n = near.read(&mut buffer).await.unwrap();
        let Some(Answer::Challenge { version, nonce, .. }) =
            Answer::parse(std::str::from_utf8(&buffer[..n]).unwrap())
        else {
            panic!("no challenge");
        };
        let transcript = Transcript {
            version,
            role: hello.role,
            session,
            kdev: hello.nonce,
            relay: nonce,
        };
        let proof = Proof {
            proof: transcript.sign(&secret(2), Side::Kdev),
            ownership: shows(&transcript),
        };
        near.write_all(proof.encode().as_bytes()).await.unwrap();
        let n = near.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let relay_keys = keys();
    let (accepted, told) = tokio::join!(accept(far, &relay_keys, admit), peer);
    (accepted.map(|accepted| accepted.hello), told)
}

#[tokio::test]
async fn a_session_is_its_owners_whoever_else_knows_its_id_and_the_secret() {
    let (ann, thief) = (Identity::random(), Identity::random());
    let session = ann.session();
    // A relay that has never heard of the session knows the owner.
    let (accepted, _) = shown(session, |transcript| Some(ann.sign(transcript))).await;
    assert_eq!(accepted.unwrap().session, session);
    // What the owner said to another relay, or in a tunnel of the other role, is no use.
    let elsewhere = Transcript {
        version: VERSION,
        role: Role::Reverse,
        session,
        kdev: Nonce::random(),
        relay: Nonce::random(),
    };
    let recorded = ann.sign(&elsewhere);
    type Shows<'a> = Box<dyn FnOnce(&Transcript) -> Option<Ownership> + 'a>;
    let attempts: [(&str, Shows); 5] = [
        ("nothing", Box::new(|_| None)),
        ("a key of its own", Box::new(|t| Some(thief.sign(t)))),
        (
            "the owner's key with its own signature",
            Box::new(|t| {
                let mut shown = thief.sign(t);
                shown.key = recorded.key;
                Some(shown)
            }),
        ),
        (
            "what the owner said elsewhere",
            Box::new(|_| Some(recorded.clone())),
        ),
        (
            "what the owner said in another role",
            Box::new(|t| {
                let mut other = t.clone();
                other.role = Role::Forward;
                Some(ann.sign(&other))
            }),
        ),
    ];
    for (what, shows) in attempts {
        let (refused, told) = shown(session, shows).await;
        assert!(
            matches!(refused, Err(HandshakeError::NotTheOwner(of)) if of == session),
            "{what}: {refused:?}"
        );
        assert!(told.contains("code: session"), "{what}: {told}");
        assert!(told.contains("another kdev's"), "{what}: {told}");
    }
}

#[tokio::test]
async fn a_relay_without_room_says_so_to_those_who_may_know() {
    let (near, far) = duplex(4096);
    let (identity, known, relay_keys) = (Identity::random(), secret(1), keys());
    let full = |_: &Hello| Err::<(), _>("200 tunnels are open".to_owned());
    let (kdev, _) = tokio::join!(
        connect(near, Role::Forward, &identity, &known),
        accept(far, &relay_keys, full)
    );
    let Err(HandshakeError::Refused(refusal)) = kdev else {
        panic!("{kdev:?}");
    };
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert_eq!(refusal.reason, "200 tunnels are open");
}

#[tokio::test]
async fn garbage_and_old_versions_are_told_why() {
    let session = "0".repeat(32);
    let nonce = "0".repeat(64);
    let old =
        format!("KDEV-TUNNEL 1\r\nrole: forward\r\nsession: {session}\r\nnonce: {nonce}\r\n\r\n");
    for (text, code) in [
        (old.as_str(), RefusalCode::Version),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", RefusalCode::Malformed),
        (
            "KDEV-TUNNEL 2\r\nrole: root\r\n\r\n",
            RefusalCode::Malformed,
        ),
    ] {
        let (mut near, far) = duplex(4096);
        near.write_all(text.as_bytes()).await.unwrap();
        match accept(far, &keys(), admit).await.unwrap_err() {
            HandshakeError::Refused(refusal) => assert_eq!(refusal.code, code, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    // Without an end there is a limit; with the end of the stream there is nothing to say.
    for (text, malformed) in [
        (vec![b'x'; 1 << 16], true),
        (b"KDEV-TUNNEL 2\r\nrole: \xff\r\n\r\n".to_vec(), true),
        (b"KDEV-TUNNEL".to_vec(), false),
    ] {
        let (mut near, far) = duplex(1 << 17);
        near.write_all(&text).await.unwrap();
        drop(near);
        match accept(far, &keys(), admit).await.unwrap_err() {
            HandshakeError::Refused(refusal) if malformed => {
                assert_eq!(refusal.code, RefusalCode::Malformed);
            }
            HandshakeError::Io(_) if !malformed => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_speaks_is_given_up() {
    let (_near, far) = duplex(4096);
    let error = accept(far, &keys(), admit).await.unwrap_err();
    assert!(matches!(error, HandshakeError::TimedOut), "{error:?}");
}
