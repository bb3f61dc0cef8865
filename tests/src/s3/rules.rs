//! What providers do on bad days, as rules for [`QuirkServer::behave`](super::QuirkServer::behave).

use std::sync::atomic::{AtomicUsize, Ordering};

use super::quirks::Answer;
use super::wire::Ask;

/// 503 SlowDown to so many requests; `usize::MAX`: to all.
pub fn busy(times: usize) -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    let left = AtomicUsize::new(times);
    move |_| {
        let less = |left: usize| left.checked_sub(1);
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Answer::Refuse(503, "SlowDown"),
            Err(_) => Answer::Pass,
        }
    }
}

/// A store of which the key may only read.
pub fn read_only() -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    |ask| {
        if ask.writes() {
            Answer::Refuse(403, "AccessDenied")
        } else {
            Answer::Pass
        }
    }
}

/// A store that has no room: nothing can be put, and things can be deleted.
pub fn full() -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    |ask| match ask.method.as_str() {
        "PUT" | "POST" => Answer::Refuse(507, "QuotaExceeded"),
        _ => Answer::Pass,
    }
}

/// A store that knows no conditional write.
pub fn no_conditional_put() -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    |ask| {
        let conditional = ["if-none-match", "if-match"];
        let asked = ask.writes() && conditional.iter().any(|name| ask.header(name).is_some());
        if asked {
            Answer::Refuse(501, "NotImplemented")
        } else {
            Answer::Pass
        }
    }
}

/// A store that deletes one key at a time.
pub fn no_bulk_delete() -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    |ask| {
        let query = ask.path.split_once('?').map_or("", |(_, query)| query);
        let bulk = ask.method == "POST" && query.split('&').any(|part| part.starts_with("delete"));
        if bulk {
            Answer::Refuse(501, "NotImplemented")
        } else {
            Answer::Pass
        }
    }
}

/// A store whose clock is so many seconds ahead; below 0: behind.
pub fn clock_moved(seconds: i64) -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    move |_| Answer::Later(seconds)
}
