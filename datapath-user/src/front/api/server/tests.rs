//! A server and a client over a real socket, with a handler that gives the answers of [`example`].

use std::sync::atomic::Ordering;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::front::api::{
    BODY_MAX, PATHS,
    client::{Client, ClientError},
    double::Double,
    dto::{
        apps::{ListApps, RemoveApp, ShowApp},
        drops::FollowDrops,
        endpoints::Attach,
        rules::ShowPolicy,
        state::GetStatus,
    },
    example,
    refusal::{Kind, Refusal},
};

/// Long enough for a slow machine; a test that needs it fails.
const SOON: Duration = Duration::from_secs(20);

/// A running server.
struct Running {
    handler: Arc<Double>,
    client: Client,
    stop: CancellationToken,
    ended: JoinHandle<()>,
    folder: TempDir,
}

impl Running {
    fn new(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weft.sock");
        let server = Server::bind(&path, access).unwrap();
        let (handler, stop) = (Arc::new(Double::default()), CancellationToken::new());
        let ended = tokio::spawn(server.run(Arc::clone(&handler), stop.clone()));
        Self { handler, client: Client::new(path), stop, ended, folder }
    }

    fn open() -> Self {
        Self::new(Access { owner: nix::unistd::getuid().as_raw(), group: None })
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(SOON, self.ended).await.unwrap().unwrap();
    }

    /// What comes back for these bytes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("weft.sock")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        self.raw(&(head + body)).await
    }
}

fn request<R: serde::de::DeserializeOwned>(text: &str) -> R {
    serde_json::from_str(text).unwrap()
}

/// Until `done`, with a deadline.
async fn until(done: impl Fn() -> bool) {
    let poll = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, poll).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_is_answered() {
    let running = Running::open();
    let client = &running.client;
    assert_eq!(client.call(&ListApps {}).await.unwrap(), example::app_list());
    assert_eq!(client.call(&GetStatus {}).await.unwrap(), example::status());
    let attach: Attach = request(r#"{"target": "4711", "app": "shop", "ips": ["10.1.0.7"]}"#);
    assert_eq!(client.call(&attach).await.unwrap(), example::attached());
    assert_eq!(*running.handler.attached.lock().unwrap(), [attach]);
    running.stop().await;
}

#[tokio::test]
async fn every_path_is_routed() {
    let running = Running::open();
    for path in PATHS {
        let answer = running.post(path, r#"{"\u001b": 1}"#).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(answer.contains("unknown field"), "{path}: {answer}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_refusal_comes_with_its_kind_and_sentence() {
    let running = Running::open();
    let error = running.client.call(&request::<ShowApp>(r#"{"name": "shop"}"#)).await.unwrap_err();
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal, Refusal::new(Kind::NotFound, "there is no app shop: see weft app ls"));
    running.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let running = Running::open();
    let check = async |path: &str, body: &str, status: &str, part: &str| {
        let answer = running.post(path, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(r#"{"schema":1,"error":{"kind":""#) && answer.contains(part), "{answer}");
    };
    check("/v1/endpoint/attach", r#"{"target": "a", "app": "Shop"}"#, "400", r#"app: \"Shop\" is no app name"#).await;
    check("/v1/endpoint/attach", r#"{"target": "a", "app": 5}"#, "400", "app: invalid type: integer `5`").await;
    check("/v1/endpoint/attach", r#"{"target": "a", "colour": 5}"#, "400", "unknown field `colour`").await;
    check("/v1/endpoint/attach", "", "400", "missing field").await;
    check("/v1/endpoint/attach", "{", "400", "EOF while parsing").await;
    check("/v1/status", "{} {}", "400", "trailing characters").await;
    check("/v1/status", "[1]", "400", "invalid").await;
    check("/v1/nothing", "{}", "404", "knows no request /v1/nothing").await;
    check("/v1/status", &" ".repeat(BODY_MAX + 1), "400", "longer than 33554432 bytes").await;
    assert!(running.handler.attached.lock().unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn only_questions_can_be_asked_with_get() {
    let running = Running::open();
    let get = async |path: &str| {
        running.raw(&format!("GET {path} HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n")).await
    };
    assert!(get("/v1/status").await.contains(r#"{"schema":1,"host":"h1""#));
    assert!(get("/v1/reset").await.contains("/v1/reset has to be posted"));
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_http_is_hung_up_on() {
    let running = Running::open();
    let answer = running.raw("\u{1b}[2J nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(running.client.call(&GetStatus {}).await.unwrap(), example::status());
    running.stop().await;
}

#[tokio::test]
async fn strangers_are_told_that_they_may_not() {
    let running = Running::new(Access { owner: nix::unistd::getuid().as_raw() + 1, group: None });
    let error = running.client.call(&GetStatus {}).await.unwrap_err();
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.kind, Kind::Forbidden);
    assert!(refusal.message.contains("only root and members of group weft may"), "{refusal}");
    let error = running.client.follow_drops(&FollowDrops {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(refusal) if refusal.kind == Kind::Forbidden), "{error:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_handler_that_fails_takes_nothing_with_it() {
    let running = Running::open();
    let error = running.client.call(&request::<ShowPolicy>(r#"{"app": "panic"}"#)).await.unwrap_err();
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.kind, Kind::Internal);
    assert_eq!(running.client.call(&GetStatus {}).await.unwrap(), example::status());
    running.stop().await;
}

#[tokio::test]
async fn a_change_is_carried_out_even_if_the_caller_hangs_up() {
    let running = Running::open();
    let client = running.client.clone();
    let call = tokio::spawn(async move { client.call(&request::<RemoveApp>(r#"{"name": "shop"}"#)).await });
    let handler = Arc::clone(&running.handler);
    until(|| handler.removing.load(Ordering::SeqCst) == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    handler.go.notify_one();
    until(|| handler.removed.load(Ordering::SeqCst) == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_change_under_way_ends_before_the_server() {
    let running = Running::open();
    let (client, handler) = (running.client.clone(), Arc::clone(&running.handler));
    let call = tokio::spawn(async move { client.call(&request::<RemoveApp>(r#"{"name": "shop"}"#)).await });
    until(|| handler.removing.load(Ordering::SeqCst) == 1).await;
    running.stop.cancel();
    handler.go.notify_one();
    timeout(SOON, running.ended).await.unwrap().unwrap();
    assert_eq!(handler.removed.load(Ordering::SeqCst), 1);
    assert_eq!(call.await.unwrap().unwrap(), example::changed());
}

#[tokio::test]
async fn drops_are_followed_until_one_side_ends() {
    let running = Running::open();
    let mut following = running.client.follow_drops(&FollowDrops {}).await.unwrap();
    assert_eq!(following.next().await.unwrap(), Some(example::dropped()));
    let sender = running.handler.followers.lock().unwrap().pop().unwrap();
    for _ in 0..3 {
        sender.send(example::dropped()).await.unwrap();
        assert_eq!(timeout(SOON, following.next()).await.unwrap().unwrap(), Some(example::dropped()));
    }
    drop(following);
    timeout(SOON, sender.closed()).await.unwrap();

    let mut following = running.client.follow_drops(&FollowDrops {}).await.unwrap();
    assert_eq!(following.next().await.unwrap(), Some(example::dropped()));
    running.stop().await;
    assert_eq!(timeout(SOON, following.next()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_said_to_be_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.sock");
    let ask = async || Client::new(&path).call(&GetStatus {}).await.unwrap_err();
    assert!(ask().await.to_string().starts_with("weftd does not run here"), "{}", ask().await);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = ask().await.to_string();
    assert!(error.contains("Connection refused") && error.contains("systemctl start weftd"), "{error}");
}

#[tokio::test]
async fn an_answer_of_another_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = tokio::spawn(async move {
        for body in [r#"{"schema":2,"host":[]}"#, "sorry"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let client = Client::new(&path);
    let error = client.call(&GetStatus {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Schema(2)), "{error}");
    let error = client.call(&GetStatus {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Broken(_)), "{error}");
    daemon.await.unwrap();
}
