//! What a token says of itself. Nobody has checked that: it is used for the text of an error alone, and to save
//! Kubernetes the questions about what is no token at all.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use types::shown;

use super::refusal::Refusal;
use super::service::AUDIENCE;

/// The largest token that is looked at; a real one has some 1,200 bytes.
const TOKEN_MAX: usize = 16 << 10;

/// The claims of a token (RFC 7519), unchecked.
#[derive(Debug)]
pub(crate) struct Claims(Value);

impl Claims {
    /// Of a token that looks like one.
    pub(crate) fn of(token: &str) -> Option<Self> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        claims.is_object().then_some(Self(claims))
    }

    /// Why Kubernetes has rejected it, as far as it says itself.
    pub(crate) fn why_rejected(&self, now: SystemTime) -> Refusal {
        let audiences: Vec<&str> = match &self.0["aud"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !audiences.contains(&AUDIENCE) {
            let shown: Vec<String> = audiences.iter().take(4).map(|one| shown(one)).collect();
            let audiences = match &shown[..] {
                [] => "no audience".to_owned(),
                shown => format!("{shown:?}"),
            };
            return Refusal::Audience { audiences };
        }
        let until = self.0["exp"].as_u64().map(Duration::from_secs);
        let until = until.and_then(|until| UNIX_EPOCH.checked_add(until));
        if let Some(past) = until.and_then(|until| now.duration_since(until).ok()) {
            let seconds = past.as_secs();
            return Refusal::Expired { seconds };
        }
        let pod = self.0["kubernetes.io"]["pod"]["name"].as_str();
        let of = pod.map_or_else(String::new, |pod| format!(" of pod {:?}", shown(pod)));
        Refusal::Rejected { of }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(claims))
    }

    #[test]
    fn what_is_no_token_is_seen_at_once() {
        for text in ["", "x", "a.b", "a.b.c", "a.e30.c.d", "a.W10.c"] {
            assert!(Claims::of(text).is_none(), "{text}");
        }
        assert!(Claims::of(&token(&json!({"x": "y".repeat(TOKEN_MAX)}))).is_none());
        assert!(Claims::of(&token(&json!({}))).is_some());
    }

    #[test]
    fn row_233_a_rejected_token_says_itself_why() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let why = |claims: Value| {
            let claims = Claims::of(&token(&claims)).unwrap();
            claims.why_rejected(now).to_string()
        };
        assert!(why(json!({"aud": ["vault"]})).contains("\"vault\""));
        assert!(why(json!({"aud": "vault"})).contains("\"vault\""));
        assert!(why(json!({})).contains("no audience"));
        let expired = why(json!({"aud": [AUDIENCE], "exp": 990}));
        assert!(expired.contains("expired 10 s ago"), "{expired}");
        let pod = json!({"pod": {"name": "manager-x"}});
        let gone = why(json!({"aud": [AUDIENCE], "exp": 1001, "kubernetes.io": pod}));
        assert!(
            gone.contains("manager-x") && gone.contains("deleted"),
            "{gone}"
        );
        for odd in [
            json!({"aud": [AUDIENCE], "exp": -1}),
            json!({"aud": [AUDIENCE], "exp": u64::MAX}),
        ] {
            assert!(why(odd).contains("does not accept"));
        }
    }
}
