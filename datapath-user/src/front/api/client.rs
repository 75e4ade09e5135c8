//! The socket's other side: one connection a request.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{
    Call, FOLLOW_DROPS,
    dto::{
        SCHEMA, Versioned,
        drops::{Dropped, FollowDrops},
    },
    refusal::{Failure, Refusal},
};

/// Longer than the daemon takes to say that it takes too long.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// The longest answer that is read: all entries of the largest table are shorter.
const ANSWER_MAX: usize = 1 << 29;
/// The longest line of an answer that does not end.
const LINE_MAX: usize = 1 << 20;

/// The daemon, as a client sees it.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens at the socket.
    NotRunning(PathBuf, io::Error),
    /// The kernel does not let us use the socket.
    Denied(PathBuf),
    /// The daemon said no.
    Refused(Refusal),
    /// The daemon's answers are of another schema.
    Schema(u32),
    /// The connection broke, or what came is no answer.
    Broken(String),
    /// Nothing came for so long.
    Late(Duration),
}

/// Drops as they happen.
#[derive(Debug)]
pub struct Following {
    body: Incoming,
    /// What came and is not yet given.
    ahead: Vec<u8>,
}

impl Client {
    /// The daemon that listens at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks, and waits for the answer.
    pub async fn call<R: Call>(&self, request: &R) -> Result<R::Answer, ClientError> {
        let answer = async {
            let response = self.post(R::PATH, request).await?;
            let (status, body) = whole(response).await?;
            read(status, &body)
        };
        tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(|_| ClientError::Late(ANSWER_WITHIN))?
    }

    /// Drops from now on.
    pub async fn follow_drops(&self, request: &FollowDrops) -> Result<Following, ClientError> {
        let response = tokio::time::timeout(ANSWER_WITHIN, self.post(FOLLOW_DROPS, request));
        let response = response.await.map_err(|_| ClientError::Late(ANSWER_WITHIN))??;
        if response.status() == StatusCode::OK {
            return Ok(Following { body: response.into_body(), ahead: Vec::new() });
        }
        let (status, body) = whole(response).await?;
        Err(refusal(status, &body))
    }

    async fn post<R: Serialize>(&self, path: &str, request: &R) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| not_connected(&self.socket, error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the last of the answer, or when that is dropped. An error shows in the answer, too.
        drop(tokio::spawn(connection));
        let body = serde_json::to_vec(request).map_err(broken)?;
        let request = Request::post(path)
            .header("host", "weft")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(broken)?;
        sender.send_request(request).await.map_err(broken)
    }
}

impl Following {
    /// The next drop; none when the daemon ends.
    pub async fn next(&mut self) -> Result<Option<Dropped>, ClientError> {
        loop {
            if let Some(end) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                return answer(&line).map(Some);
            }
            if self.ahead.len() > LINE_MAX {
                return Err(ClientError::Broken("a line does not end".to_owned()));
            }
            match self.body.frame().await {
                Some(frame) => self.ahead.extend(frame.map_err(broken)?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| ClientError::Broken(error.to_string()))?;
    Ok((status, body.to_bytes()))
}

fn read<A: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<A, ClientError> {
    if status == StatusCode::OK { answer(body) } else { Err(refusal(status, body)) }
}

/// The schema first: an answer of another may not be readable at all.
fn answer<A: DeserializeOwned>(body: &[u8]) -> Result<A, ClientError> {
    #[derive(Deserialize)]
    struct Schema {
        schema: u32,
    }
    let Schema { schema } = serde_json::from_slice(body).map_err(broken)?;
    if schema != SCHEMA {
        return Err(ClientError::Schema(schema));
    }
    let Versioned { schema: _, answer } = serde_json::from_slice(body).map_err(broken)?;
    Ok(answer)
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match answer(body) {
        Ok(Failure { error }) => ClientError::Refused(error),
        Err(ClientError::Schema(schema)) => ClientError::Schema(schema),
        Err(_) => ClientError::Broken(format!("HTTP status {status} without a reason")),
    }
}

fn not_connected(socket: &Path, error: io::Error) -> ClientError {
    let socket = socket.to_owned();
    let kind = error.kind();
    if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&kind) {
        ClientError::NotRunning(socket, error)
    } else if kind == io::ErrorKind::PermissionDenied {
        ClientError::Denied(socket)
    } else {
        ClientError::Broken(format!("connect to {}: {error}", socket.display()))
    }
}

fn broken(error: impl fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(socket, error) => {
                let socket = socket.display();
                write!(
                    f,
                    "weftd does not run here: nobody listens at {socket} ({error}). Start it: systemctl start weftd, or \
                     sudo weftd --cluster FILE --host NAME. If it listens elsewhere, name the socket with --socket"
                )
            }
            Self::Denied(socket) => {
                let socket = socket.display();
                write!(f, "no permission to use {socket}: use sudo, or join the group weft: usermod -aG weft USER")
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Schema(schema) => {
                write!(
                    f,
                    "weftd answers in schema {schema}, this weft reads schema {SCHEMA}: install the same version of both"
                )
            }
            Self::Broken(what) => write!(f, "no answer from weftd: {what}. See its log: journalctl -u weftd"),
            Self::Late(within) => {
                write!(f, "no answer from weftd within {within:?}. See its log: journalctl -u weftd")
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::NotRunning(..) | Self::Denied(_) | Self::Schema(_) | Self::Broken(_) | Self::Late(_) => None,
        }
    }
}
