//! What peers send, cut and broken in any way.

use super::*;

proptest! {
    #[test]
    fn first_messages_come_back_as_they_were(program in "[ -~]{0,40}", reverse: bool) {
        let role = if reverse { Role::Reverse } else { Role::Forward };
        let mut said = Hello::new(role, Identity::random().session());
        said.program = program.trim().to_owned();
        prop_assert_eq!(Hello::parse(&said.encode()), Some(said));
    }

    #[test]
    fn no_text_of_a_peer_is_a_panic(text in "\\PC{0,200}") {
        let text = format!("{text}\r\n\r\n");
        let _ = Hello::parse(&text);
        let _ = head::Answer::parse(&text);
        let _ = head::Proof::parse(&text);
    }

    #[test]
    fn proofs_come_back_as_they_were(proof: [u8; 32], key: [u8; 32], half: [u8; 32], owns: bool) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&half);
        let ownership = owns.then_some(identity::Ownership { key, signature });
        let said = head::Proof { proof, ownership };
        prop_assert_eq!(head::Proof::parse(&said.encode()), Some(said));
    }

    #[test]
    fn datagrams_come_back_however_they_are_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..8),
        cut in 1_usize..3000,
    ) {
        let mut wire = BytesMut::new();
        for payload in &payloads {
            datagram::encode(payload, &mut wire);
        }
        let (mut read, mut back) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(cut) {
            read.extend_from_slice(piece);
            while let Some(payload) = datagram::decode(&mut read).unwrap() {
                back.push(payload.to_vec());
            }
        }
        prop_assert_eq!(back, payloads);
        prop_assert!(read.is_empty());
    }

    #[test]
    fn capsules_of_a_hostile_peer_are_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut read = BytesMut::from(&bytes[..]);
        while let Ok(Some(payload)) = datagram::decode(&mut read) {
            prop_assert!(payload.len() <= datagram::MAX_PAYLOAD + 8);
        }
        prop_assert!(read.capacity() <= (datagram::MAX_PAYLOAD + 1024) * 2);
    }
}

#[test]
fn capsules_of_other_kinds_are_skipped() {
    // Type 0x17, two bytes; then a datagram of context 2; then ours.
    let mut bytes = BytesMut::from(&[0x17, 2, 9, 9, 0, 2, 2, 7][..]);
    datagram::encode(b"ours", &mut bytes);
    assert_eq!(datagram::decode(&mut bytes).unwrap().unwrap(), &b"ours"[..]);
    assert!(datagram::decode(&mut bytes).unwrap().is_none());
}
