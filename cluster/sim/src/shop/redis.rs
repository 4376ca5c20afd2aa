//! Enough of the Redis protocol for `redis-cli` and small clients.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::stream::SimStream;

/// The longest word of a command, and the most words: plenty for a demo.
const LONGEST: usize = 64 * 1024;
const MOST: usize = 64;

/// What was SET, shared by all connections.
pub(super) type Shelf = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

pub(super) async fn serve(io: SimStream, shelf: Shelf) {
    let (from, mut to) = tokio::io::split(io);
    let mut from = BufReader::new(from);
    // A client that breaks off has nothing more to be told.
    while let Ok(Some(words)) = command(&mut from).await {
        let (reply, last) = answer(&words, &shelf);
        if to.write_all(&reply).await.is_err() || to.flush().await.is_err() || last {
            break;
        }
    }
}

/// One command: an array of strings, or a line of words as typed into telnet.
async fn command<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(first) = line(from).await? else {
        return Ok(None);
    };
    let Some(count) = first.strip_prefix(b"*") else {
        return Ok(Some(
            first
                .split(u8::is_ascii_whitespace)
                .map(<[u8]>::to_vec)
                .collect(),
        ));
    };
    let count = number(count)
        .filter(|&count| count <= MOST)
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let head = line(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = head.strip_prefix(b"$").and_then(number);
        let length = length
            .filter(|&n| n <= LONGEST)
            .ok_or(io::ErrorKind::InvalidData)?;
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(word);
    }
    Ok(Some(words))
}

async fn line<R: AsyncBufRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(LONGEST as u64)
        .read_until(b'\n', &mut line)
        .await?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The reply, and whether the connection ends with it.
fn answer(words: &[Vec<u8>], shelf: &Shelf) -> (Vec<u8>, bool) {
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let name = words
        .first()
        .map(|word| word.to_ascii_uppercase())
        .unwrap_or_default();
    let reply = match (name.as_slice(), words.get(1..).unwrap_or_default()) {
        (b"PING", []) => b"+PONG\r\n".to_vec(),
        (b"PING" | b"ECHO", [text]) => bulk(text),
        (b"SET", [key, value, ..]) => {
            shelf.insert(key.to_vec(), value.to_vec());
            b"+OK\r\n".to_vec()
        }
        (b"GET", [key]) => shelf
            .get(*key)
            .map_or_else(|| b"$-1\r\n".to_vec(), |v| bulk(v)),
        (b"DEL", keys) => {
            let gone = keys
                .iter()
                .filter(|key| shelf.remove(**key).is_some())
                .count();
            format!(":{gone}\r\n").into_bytes()
        }
        (b"KEYS", [_]) => array(shelf.keys()),
        (b"COMMAND" | b"CONFIG", _) => b"*0\r\n".to_vec(),
        (b"INFO", _) => bulk(b"# Server\r\nredis_version:7.0.0\r\n"),
        (b"SELECT" | b"CLIENT", _) => b"+OK\r\n".to_vec(),
        (b"QUIT", _) => return (b"+OK\r\n".to_vec(), true),
        (b"" | b"*0", []) => Vec::new(),
        (name, _) => format!(
            "-ERR unknown command '{}'\r\n",
            String::from_utf8_lossy(name)
        )
        .into_bytes(),
    };
    (reply, false)
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn array<'a>(items: impl ExactSizeIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let head = format!("*{}\r\n", items.len()).into_bytes();
    items.fold(head, |mut out, item| {
        out.extend_from_slice(&bulk(item));
        out
    })
}
