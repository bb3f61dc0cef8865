//! The server: images, whole or on their way, in answers to plain HTTP/1.1 requests.
//!
//! docs/sync.md is the reference for these answers. [`asked`] parses a request, [`send`] writes the
//! bodies.

mod asked;
mod send;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::header::{CONTENT_RANGE, HeaderMap, RANGE, UPGRADE};
use axum::http::{Method, Response};
use axum::routing::{get, post};

/// How connections are served, so that bytes can go to them bare.
pub use listen::takeover;

use self::asked::{Asked, Refused};
use self::send::Kind;
use self::takeover::Takeover;
use super::bits::Bits;
use super::manifest::manifest_length;
use super::offer::Library;
use super::protocol::{self, Refusal};
use super::swarm::Swarm;

#[derive(Debug, Clone)]
struct Server<L> {
    swarm: Swarm,
    library: L,
}

/// The routes of the protocol. To be served with connect info, so that receivers can help each other.
pub fn router<L: Library>(swarm: Swarm, library: L) -> Router {
    Router::new()
        .route("/v2/images/{name}/{uuid}/manifest", get(manifest::<L>))
        .route("/v2/images/{name}/{uuid}/have", get(have))
        .route("/v2/images/{name}/{uuid}/data", get(data::<L>))
        .route("/v2/images/{name}/{uuid}/check", post(check::<L>))
        .with_state(Server { swarm, library })
}

type Answered = Result<Response<Body>, Refused>;

async fn manifest<L: Library>(
    State(server): State<Server<L>>,
    method: Method,
    asked: Asked,
) -> Answered {
    let length = manifest_length(asked.offer.geometry());
    let body = server.body(&asked, &method, 0..length, Kind::Manifest)?;
    Ok(asked.answer(200, length, body))
}

async fn have(asked: Asked) -> Answered {
    let count = asked.offer.geometry().count();
    let have = asked.offer.have().unwrap_or_else(|| Bits::all(count));
    let bytes = have.to_bytes();
    let length = bytes.len() as u64;
    Ok(asked.answer(200, length, Body::from(bytes)))
}

async fn data<L: Library>(
    State(server): State<Server<L>>,
    method: Method,
    headers: HeaderMap,
    takeover: Option<Extension<Takeover>>,
    asked: Asked,
) -> Answered {
    let geometry = asked.offer.geometry();
    let (status, bytes) = match asked::text(&headers, &RANGE) {
        "" => (200, 0..geometry.size),
        range => {
            let bytes = protocol::parse_range(range, geometry.size);
            let bytes =
                bytes.ok_or_else(|| Refused::request("that is not a range of the image"))?;
            (206, bytes)
        }
    };
    let chunks = geometry
        .chunks(&bytes)
        .ok_or_else(|| Refused::request("a range must consist of whole chunks"))?;
    if let Some(have) = asked.offer.have()
        && !chunks.clone().all(|index| have.contains(index))
    {
        let why = "not all of these chunks are here";
        return Err(Refused::new(Refusal::NoChunk, why));
    }
    let length = bytes.end - bytes.start;
    let range = protocol::content_range(&bytes, geometry.size);
    let bare = asked::text(&headers, &UPGRADE) == protocol::BARE;
    if bare && let Some(Extension(takeover)) = takeover.filter(|_| method == Method::GET) {
        let sending = server.sending(&asked, Kind::Data)?;
        takeover.leave(move |socket| Box::pin(sending.bare(bytes, socket)));
        return Ok(asked.switch(&range));
    }
    let body = server.body(&asked, &method, bytes, Kind::Data)?;
    let mut answer = asked.answer(status, length, body);
    if status == 206 {
        asked::insert(&mut answer, CONTENT_RANGE, &range);
    }
    Ok(answer)
}

async fn check<L: Library>(
    State(server): State<Server<L>>,
    RawQuery(query): RawQuery,
    asked: Asked,
) -> Answered {
    let query = query.unwrap_or_default();
    let index = query.strip_prefix("chunk=").unwrap_or_default();
    let index = index
        .parse()
        .ok()
        .filter(|index: &u32| *index < asked.offer.geometry().count())
        .ok_or_else(|| Refused::request("name the chunk: ?chunk=N"))?;
    if !asked.offer.has(index) {
        return Err(Refused::new(Refusal::NoChunk, "the chunk is not here"));
    }
    let turn = server.swarm.checks().try_acquire();
    let _turn = turn.map_err(|_| Refused::busy())?;
    match asked.offer.check(index).await {
        Ok(true) => Ok(asked.answer(200, 0, Body::empty())),
        Ok(false) => {
            server.swarm.metrics().own_damaged.add(1);
            let why = format!("chunk {index} is damaged here");
            Err(Refused::new(Refusal::Damaged, why))
        }
        Err(error) => Err(Refused::new(
            Refusal::Disk,
            format!("chunk {index}: {error}"),
        )),
    }
}
