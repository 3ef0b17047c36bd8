//! An HTTP/1.1 client that costs next to nothing: requests are bytes made beforehand, answers are read and mostly
//! thrown away. The attacker shares the machine with those whom it attacks, and must not be what slows them down.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// The address from which attackers come: another peer than the victim, on the same machine.
pub(super) const ATTACKER: &str = "127.0.0.2:0";
/// The longest time that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest part of an answer that is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The body, if it was to be kept.
    pub(super) body: Vec<u8>,
}

/// A connection that is opened when it is needed, and again after it broke.
pub(super) struct Wire {
    server: SocketAddr,
    from: Option<SocketAddr>,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// Returns the bytes of a request.
#[must_use]
pub(super) fn request(method: &str, path: &str, secret: &str, body: &str) -> Vec<u8> {
    let content = match body.is_empty() {
        true => String::new(),
        false => {
            format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
        }
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {secret}\r\n{content}\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Opens a connection from `from`, or from wherever it comes.
///
/// # Errors
/// When it is not accepted.
pub(super) async fn connect(server: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(from)?;
    }
    let stream = timeout(PATIENCE, socket.connect(server)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Wire {
    /// Returns a connection to `server` from `from`.
    #[must_use]
    pub(super) fn new(server: SocketAddr, from: Option<SocketAddr>) -> Wire {
        Wire { server, from, stream: None, buffer: Vec::new() }
    }

    /// Sends a request and reads the whole answer; its body is kept if `keep`.
    ///
    /// # Errors
    /// When the connection broke; the next request opens another.
    pub(super) async fn ask(&mut self, request: &[u8], keep: bool) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.server, self.from).await?,
        };
        self.buffer.clear();
        let exchange = async {
            stream.write_all(request).await?;
            read_answer(&mut stream, &mut self.buffer, keep).await
        };
        let (answer, open) = timeout(PATIENCE, exchange).await??;
        if open {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

/// The head of a response.
struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    close: bool,
}

fn head_of(head: &[u8]) -> io::Result<Head> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP answer");
    let head = std::str::from_utf8(head).map_err(|_| broken())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)).and_then(|code| code.parse().ok());
    let mut head =
        Head { status: status.ok_or_else(broken)?, length: None, chunked: false, close: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(head)
}

/// Reads an answer. Also answers if the connection may be used again.
async fn read_answer(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    keep: bool,
) -> io::Result<(Answer, bool)> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        fill(stream, buffer).await?;
    };
    let head = head_of(&buffer[..end])?;
    buffer.drain(..end + 4);
    // What is refused says why.
    let keep = keep || head.status >= 400;
    let body = match head {
        Head { chunked: true, .. } => read_chunks(stream, buffer, keep).await?,
        _ => read_length(stream, buffer, head.length.unwrap_or(0), keep).await?,
    };
    Ok((Answer { status: head.status, body }, !head.close))
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let from = buffer.len();
    buffer.resize(from + CHUNK, 0);
    let read = stream.read(&mut buffer[from..]).await?;
    buffer.truncate(from + read);
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn read_length(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    length: usize,
    keep: bool,
) -> io::Result<Vec<u8>> {
    let (mut left, mut body) = (length, Vec::new());
    loop {
        let now = left.min(buffer.len());
        if keep {
            body.extend_from_slice(&buffer[..now]);
        }
        buffer.drain(..now);
        left -= now;
        if left == 0 {
            return Ok(body);
        }
        fill(stream, buffer).await?;
    }
}

async fn read_chunks(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    keep: bool,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            fill(stream, buffer).await?;
        };
        let size = std::str::from_utf8(&buffer[..end]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        buffer.drain(..end + 2);
        body.extend(read_length(stream, buffer, size, keep).await?);
        read_length(stream, buffer, 2, false).await?;
        if size == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn answers_of_known_and_of_unknown_length_are_read_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
            "HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ];
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 1_000];
            for answer in answers {
                assert!(stream.read(&mut read).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let ask = async {
            let mut wire = Wire::new(address, None);
            let asked = request("GET", "/", "secret", "");
            let mut seen = Vec::new();
            for _ in 0..3 {
                let answer = wire.ask(&asked, true).await.unwrap();
                seen.push((answer.status, String::from_utf8(answer.body).unwrap()));
            }
            seen
        };
        let ((), seen) = tokio::join!(serve, ask);
        let expected = [(200, "first"), (429, "second"), (204, "")];
        assert_eq!(seen, expected.map(|(status, body)| (status, body.to_owned())));
    }
}
