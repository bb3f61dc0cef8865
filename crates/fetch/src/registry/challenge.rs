//! `WWW-Authenticate` as registries write it (RFC 9110 section 11.6.1, distribution token
//! specification).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be convinced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// Where a token is to be had, and for what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

/// The best challenge of an answer: Bearer before Basic; `None` when there is none that we know.
pub(super) fn best(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let all: Vec<Challenge> = texts.flat_map(parse).collect();
    let bearer = |c: &Challenge| matches!(c, Challenge::Bearer(_));
    let at = all
        .iter()
        .position(bearer)
        .or_else(|| (!all.is_empty()).then_some(0))?;
    all.into_iter().nth(at)
}

/// Reads one header: challenges, each with its parameters, all parted by commas.
fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = value_of(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            found.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
    }
    found
        .into_iter()
        .filter_map(|(scheme, parameters)| challenge(&scheme, parameters))
        .collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let mut bearer = Bearer::default();
            for (name, value) in parameters {
                match name.as_str() {
                    "realm" => bearer.realm = value,
                    "service" => bearer.service = Some(value),
                    "scope" => bearer.scope = Some(value),
                    _ => {}
                }
            }
            Some(Challenge::Bearer(bearer))
        }
        _ => None,
    }
}

/// A token or a quoted string, and what comes after it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn best_of(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        }
        best(&headers)
    }

    #[test]
    fn challenges_are_read_as_the_rfc_writes_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(best_of(&[hub]), Some(Challenge::Bearer(expected)));
        assert_eq!(
            best_of(&[r#"Basic realm="x, Bearer y""#]),
            Some(Challenge::Basic)
        );
        let token = r"bearer Realm = https://x/t , service=s";
        for texts in [
            &[r#"Basic realm="b""#, token][..],
            &[r#"Basic realm="b\"", bearer realm=https://x/t, service=s"#],
        ] {
            match best_of(texts) {
                Some(Challenge::Bearer(bearer)) => {
                    assert_eq!(
                        (bearer.realm.as_str(), bearer.service.as_deref()),
                        ("https://x/t", Some("s"))
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn nonsense_is_no_challenge_and_no_panic() {
        for text in [
            "",
            ",",
            "=",
            "Negotiate abc==",
            "Digest realm=x",
            "a=b",
            "\"",
            "Basic\\",
            "= ,= \"",
        ] {
            assert!(
                !matches!(best_of(&[text]), Some(Challenge::Bearer(_))),
                "{text:?}"
            );
        }
        assert!(matches!(
            best_of(&["Bearer realm=\"unclosed"]),
            Some(Challenge::Bearer(_))
        ));
    }
}
