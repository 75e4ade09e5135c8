//! From HTTP to use cases and back.

use std::{convert::Infallible, error::Error, future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use futures::stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info};

use super::Shared;
use crate::front::api::{
    BODY_MAX, Call, Effect, FOLLOW_DROPS, Handler,
    dto::{
        Versioned,
        apps::{AddApp, ListApps, RemoveApp, SetApp, ShowApp},
        drops::{Dropped, FollowDrops, ListDrops},
        endpoints::{Attach, Detach, ListEndpoints, Relabel},
        flows::{ListFlows, ListTraffic},
        learning::{LearnPolicy, ListContacts},
        maps::ShowMaps,
        policies::{ApplyPolicy, DeletePolicy, DiffPolicy, ExportPolicy, GetDigest, ShowMatrix},
        rules::{AddRule, ListRules, Promote, RemoveRule, ShowPolicy},
        state::{Diagnose, GetStatus, ListPeers, Reset},
        why::Why,
    },
    refusal::{Failure, Kind, Refusal},
};

/// How long a caller may take to send the body of a request.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How long a use case may take: longer than any wait inside one.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// All paths.
pub(super) fn router<H: Handler>(shared: Shared<H>) -> Router {
    let router = Router::new();
    macro_rules! route {
        ($router:expr, $($request:ty => $method:ident),* $(,)?) => {
            $router $( .route(<$request>::PATH, any(async |State(shared): State<Shared<H>>, request: Request| {
                let perform = |handler: Arc<H>, asked: $request| async move { handler.$method(asked).await };
                respond(ask(shared, request, perform).await)
            })) )*
        };
    }
    let router = route!(
        router,
        ListApps => list_apps,
        ShowApp => show_app,
        AddApp => add_app,
        SetApp => set_app,
        RemoveApp => remove_app,
        ListEndpoints => list_endpoints,
        Attach => attach,
        Detach => detach,
        Relabel => relabel,
        ListRules => list_rules,
        AddRule => add_rule,
        RemoveRule => remove_rule,
        Promote => promote,
        ShowPolicy => show_policy,
        ApplyPolicy => apply_policy,
        DeletePolicy => delete_policy,
        DiffPolicy => diff_policy,
        ExportPolicy => export_policy,
        ShowMatrix => show_matrix,
        LearnPolicy => learn_policy,
        GetDigest => digest,
        Why => why,
        ListFlows => list_flows,
        ListContacts => list_contacts,
        ListTraffic => list_traffic,
        ListDrops => list_drops,
        ListPeers => list_peers,
        GetStatus => status,
        ShowMaps => show_maps,
        Diagnose => diagnose,
        Reset => reset,
    );
    router.route(FOLLOW_DROPS, any(follow_drops)).fallback(unknown).with_state(shared)
}

/// Tells every request the same.
pub(super) fn refuse_all(refusal: Refusal) -> Router {
    Router::new().fallback(move || {
        let refusal = refusal.clone();
        async move { refusal }
    })
}

/// Reads a request, has it performed, and waits for the answer.
async fn ask<H, R, F, Fut>(shared: Shared<H>, request: Request, perform: F) -> Result<R::Answer, Refusal>
where
    H: Handler,
    R: Call,
    F: FnOnce(Arc<H>, R) -> Fut,
    Fut: Future<Output = Result<R::Answer, Refusal>> + Send + 'static,
{
    let asked = read(request, R::EFFECT).await?;
    let performed = perform(shared.handler, asked);
    let performed = async move {
        match R::EFFECT {
            Effect::Reads => AbortOnDropHandle::new(tokio::spawn(performed)).await,
            Effect::Changes => shared.changes.spawn(performed).await,
        }
    };
    let Ok(performed) = tokio::time::timeout(ANSWER_WITHIN, performed).await else {
        let message = match R::EFFECT {
            Effect::Reads => format!("no answer within {ANSWER_WITHIN:?}: see weft status"),
            Effect::Changes => format!("not done within {ANSWER_WITHIN:?}, and not given up: see weft status"),
        };
        return Err(Refusal::new(Kind::Unavailable, message));
    };
    let answer = performed.unwrap_or_else(|failed| {
        error!(path = R::PATH, %failed, "API request failed");
        Err(Refusal::new(Kind::Internal, "the daemon failed at this request: see its log"))
    });
    if R::EFFECT == Effect::Changes {
        match &answer {
            Ok(_) => info!(path = R::PATH, "done"),
            Err(refusal) => info!(path = R::PATH, %refusal, "refused"),
        }
    }
    answer
}

/// The request in a body; an empty one is a request without fields.
async fn read<R: DeserializeOwned>(request: Request, effect: Effect) -> Result<R, Refusal> {
    let allowed = match effect {
        Effect::Reads => [Method::GET, Method::POST].contains(request.method()),
        Effect::Changes => request.method() == Method::POST,
    };
    if !allowed {
        return Err(Refusal::invalid(format!("{} has to be posted, as JSON", request.uri().path())));
    }
    let body = to_bytes(request.into_body(), BODY_MAX);
    let late = |_| Refusal::invalid(format!("the body did not come within {BODY_WITHIN:?}"));
    let long = |_| Refusal::invalid(format!("the body is cut short, or longer than {BODY_MAX} bytes"));
    let body = tokio::time::timeout(BODY_WITHIN, body).await.map_err(late)?.map_err(long)?;
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    let Json(request) = Json::from_bytes(&body).map_err(|rejection| Refusal::invalid(said(&rejection)))?;
    Ok(request)
}

/// What the JSON reader says, without what axum puts around it: the field's path, what is wrong, and where.
fn said(rejection: &(dyn Error + 'static)) -> String {
    let mut last = rejection;
    while let Some(source) = last.source() {
        // Below the path is the same again without it.
        if source.is::<serde_json::Error>() {
            break;
        }
        last = source;
    }
    last.to_string()
}

async fn follow_drops<H: Handler>(State(shared): State<Shared<H>>, request: Request) -> Response {
    let follow = async {
        let asked: FollowDrops = read(request, Effect::Reads).await?;
        shared.handler.follow_drops(asked).await
    };
    match follow.await {
        Ok(drops) => {
            let lines = Body::from_stream(stream::unfold((drops, shared.stop), next_line));
            ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

type Following = (mpsc::Receiver<Dropped>, CancellationToken);

/// Ends with the events or with the daemon.
async fn next_line((mut drops, stop): Following) -> Option<(Result<Bytes, Infallible>, Following)> {
    let dropped = stop.run_until_cancelled(drops.recv()).await.flatten()?;
    // Text and numbers: nothing that JSON could refuse.
    let mut line = serde_json::to_vec(&Versioned::new(dropped)).ok()?;
    line.push(b'\n');
    Some((Ok(line.into()), (drops, stop)))
}

async fn unknown(uri: Uri) -> Refusal {
    let version = env!("CARGO_PKG_VERSION");
    let path = uri.path();
    Refusal::not_found(format!("weftd {version} knows no request {path}: install weft and weftd of the same version"))
}

fn respond<A: Serialize>(answer: Result<A, Refusal>) -> Response {
    match answer {
        Ok(answer) => Json(Versioned::new(answer)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(Versioned::new(Failure { error: self }))).into_response()
    }
}
