//! One connection, one request at a time.

use std::{io, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use super::Protocol;

/// Bytes of an answer at most.
const ANSWER_LEN_MAX: usize = 4 << 20;

pub struct Connection {
    stream: TcpStream,
    protocol: Protocol,
}

impl Connection {
    pub async fn open(address: SocketAddr, protocol: Protocol) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, protocol })
    }

    /// Sends a request and reads its answer to the end.
    ///
    /// # Errors
    /// When the connection ends, or the answer says that something failed.
    pub async fn exchange(&mut self, what: &str) -> Result<()> {
        let request = match self.protocol {
            Protocol::Http => format!("GET {what} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Protocol::Redis => format!("{what}\r\n"),
        };
        self.send(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let len = loop {
            self.receive(&mut answer).await?;
            let len = match self.protocol {
                Protocol::Http => http_len(&answer)?,
                Protocol::Redis => redis_len(&answer)?,
            };
            if let Some(len) = len {
                break len;
            }
        };
        ensure!(len <= ANSWER_LEN_MAX, "the answer has {len} bytes");
        while answer.len() < len {
            self.receive(&mut answer).await?;
        }
        Ok(())
    }

    async fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn receive(&mut self, answer: &mut Vec<u8>) -> Result<()> {
        let mut bytes = [0; 16 << 10];
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(len) => {
                    answer.extend_from_slice(&bytes[..len]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Bytes of the whole answer, once its head is there.
fn http_len(answer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200"), "answered {status:?}");
    let body = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("an answer without content-length")?;
    Ok(Some(end + 4 + body.1.trim().parse::<usize>()?))
}

/// Bytes of the whole answer, once its first line is there.
fn redis_len(answer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = answer.windows(2).position(|two| two == b"\r\n") else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&answer[..end])?;
    ensure!(!line.starts_with('-'), "answered {line:?}");
    match line.strip_prefix('$') {
        None | Some("-1") => Ok(Some(end + 2)),
        Some(len) => Ok(Some(end + 2 + len.parse::<usize>()? + 2)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn answers_tell_where_they_end() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        assert_eq!(http_len(answer).unwrap(), Some(answer.len() + 2));
        assert_eq!(http_len(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert!(http_len(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(http_len(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert_eq!(redis_len(b"$3\r\na").unwrap(), Some(9));
        assert_eq!(redis_len(b"$-1\r\n").unwrap(), Some(5));
        assert_eq!(redis_len(b"+OK\r\n").unwrap(), Some(5));
        assert_eq!(redis_len(b":12").unwrap(), None);
        assert!(redis_len(b"-ERR no\r\n").is_err());
    }
}
