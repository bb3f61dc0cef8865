//! Who has signed in: a random word in a cookie for each, and what it stands for in memory. A restart forgets all.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::access::Person;
use crate::{Error, Result};

/// How long one is signed in.
const LIFE: Duration = Duration::from_hours(8);
/// Sessions in all, and of one person. The oldest ones of whoever has most end first.
const SESSIONS_MAX: usize = 4096;
const OF_PERSON_MAX: usize = 16;
/// The cookie of a browser that keeps it to this very host and to TLS, and of one on this machine itself.
const SECURE: &str = "__Host-session";
const LOCAL: &str = "session";
const WORD_BYTES: usize = 32;

/// What is remembered of a word: its digest. How long a look-up takes says nothing of the words that there are.
type Key = [u8; 32];

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) person: Person,
    /// What has to be as it was when they signed in.
    pub(super) proof: String,
    since: Instant,
}

/// All who are signed in.
#[derive(Default)]
pub(super) struct Sessions {
    all: Mutex<HashMap<Key, Session>>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// Signs somebody in; the value of `Set-Cookie`.
    pub(super) fn begin(
        &self,
        person: Person,
        proof: String,
        local: bool,
        now: Instant,
    ) -> Result<HeaderValue> {
        let mut word = Zeroizing::new([0; WORD_BYTES]);
        let random = SystemRandom::new().fill(&mut *word);
        random.map_err(|_| Error::NoRandomness)?;
        let word = Zeroizing::new(hexadecimal(&*word));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| now.duration_since(session.since) < LIFE);
        let of_person = |session: &Session| session.person.name == person.name;
        if all.values().filter(|session| of_person(session)).count() >= OF_PERSON_MAX {
            end_oldest(&mut all, of_person);
        } else if all.len() >= SESSIONS_MAX {
            end_oldest(&mut all, |_| true);
        }
        let session = Session {
            person,
            proof,
            since: now,
        };
        all.insert(key(&word), session);
        drop(all);
        cookie(&word, LIFE, local)
    }

    /// Who asks, if they are signed in.
    pub(super) fn find(&self, headers: &HeaderMap, local: bool, now: Instant) -> Option<Session> {
        let key = asked(headers, local)?;
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get(&key)?;
        (now.duration_since(session.since) < LIFE).then(|| session.clone())
    }

    /// Signs out whoever asks; the value of `Set-Cookie`.
    pub(super) fn end(&self, headers: &HeaderMap, local: bool) -> Result<HeaderValue> {
        if let Some(key) = asked(headers, local) {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.remove(&key);
        }
        cookie("", Duration::ZERO, local)
    }
}

fn end_oldest(all: &mut HashMap<Key, Session>, which: impl Fn(&Session) -> bool) {
    let of = all.iter().filter(|(_, session)| which(session));
    let oldest = of.min_by_key(|(_, session)| session.since);
    if let Some(key) = oldest.map(|(key, _)| *key) {
        all.remove(&key);
    }
}

fn cookie(word: &str, life: Duration, local: bool) -> Result<HeaderValue> {
    let (name, secure) = if local {
        (LOCAL, "")
    } else {
        (SECURE, " Secure;")
    };
    let seconds = life.as_secs();
    let text = Zeroizing::new(format!(
        "{name}={word}; Path=/; Max-Age={seconds};{secure} HttpOnly; SameSite=Strict"
    ));
    let mut value = HeaderValue::from_str(&text).map_err(|_| Error::NoRandomness)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The word of a request, as it is remembered. More cookies than one of this name are somebody's trick.
fn asked(headers: &HeaderMap, local: bool) -> Option<Key> {
    let name = if local { LOCAL } else { SECURE };
    let lines = headers.get_all(COOKIE).into_iter();
    let mut words = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, word)| word);
    let word = words.next()?;
    (words.next().is_none() && word.len() == 2 * WORD_BYTES).then(|| key(word))
}

fn key(word: &str) -> Key {
    let digest = digest(&SHA256, word.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(digest.as_ref());
    key
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> Person {
        Person {
            name: name.to_owned(),
            groups: Vec::new(),
            signed_in: true,
        }
    }

    fn sent(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("other=1; {pair}").parse().unwrap());
        headers
    }

    #[test]
    fn a_cookie_is_good_for_eight_hours_and_until_its_person_leaves() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begin = |name| sessions.begin(person(name), String::new(), false, now);
        let (ada, bob) = (begin("ada").unwrap(), begin("bob").unwrap());
        let text = ada.to_str().unwrap();
        assert!(text.starts_with("__Host-session="), "{text}");
        for part in [
            "; Secure",
            "; HttpOnly",
            "; SameSite=Strict",
            "; Path=/",
            "Max-Age=28800",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(ada.is_sensitive());
        let who = |cookie: &HeaderValue, now| {
            let found = sessions.find(&sent(cookie), false, now);
            found.map(|session| session.person.name)
        };
        assert_eq!(who(&ada, now).unwrap(), "ada");
        assert_eq!(who(&bob, now).unwrap(), "bob");
        assert_eq!(who(&ada, now + LIFE), None);
        // A cookie of the other name is not looked at.
        assert!(sessions.find(&sent(&ada), true, now).is_none());
        let gone = sessions.end(&sent(&ada), false).unwrap();
        assert!(gone.to_str().unwrap().contains("Max-Age=0"));
        assert_eq!(who(&ada, now), None);
        assert_eq!(who(&bob, now).unwrap(), "bob");
    }

    #[test]
    fn on_this_machine_the_cookie_needs_no_tls() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(person("ada"), String::new(), true, Instant::now());
        let cookie = cookie.unwrap();
        let text = cookie.to_str().unwrap();
        assert!(
            text.starts_with("session=") && !text.contains("Secure"),
            "{text}"
        );
    }

    #[test]
    fn words_that_nobody_was_given_are_nobody() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let cookie = sessions
            .begin(person("ada"), String::new(), false, now)
            .unwrap();
        let mut twice = sent(&cookie);
        twice.append(COOKIE, HeaderValue::from_static("__Host-session=x"));
        assert!(sessions.find(&twice, false, now).is_none());
        for word in ["", "x", &"0".repeat(64)] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("__Host-session={word}").parse().unwrap());
            assert!(sessions.find(&headers, false, now).is_none(), "{word}");
        }
    }

    #[test]
    fn sessions_of_one_person_and_of_all_are_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let bob = sessions
            .begin(person("bob"), String::new(), false, now)
            .unwrap();
        for n in 0..2 * OF_PERSON_MAX {
            let later = now + Duration::from_millis(n as u64);
            sessions
                .begin(person("ada"), String::new(), false, later)
                .unwrap();
        }
        assert_eq!(sessions.all.lock().unwrap().len(), OF_PERSON_MAX + 1);
        assert!(sessions.find(&sent(&bob), false, now).is_some());
        for n in 0..SESSIONS_MAX + 10 {
            sessions
                .begin(person(&n.to_string()), String::new(), false, now)
                .unwrap();
        }
        assert!(sessions.all.lock().unwrap().len() <= SESSIONS_MAX);
    }
}
