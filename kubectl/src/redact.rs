//! What must not leave a cluster in a support bundle: taken out of texts and of objects.
//!
//! The rule is to lose too much rather than too little. Secrets of Kubernetes are never asked for in the first place.

use serde_json::Value;

/// What stands in the place of what was taken out.
const GONE: &str = "(removed)";
/// Parts of names whose values are secrets, in lower case.
const NAMES: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "token",
    "credential",
    "authorization",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "accesskey",
    "private_key",
    "privatekey",
    "dockerconfigjson",
    "cookie",
];
/// Names that contain one of these and hold no secret.
const HARMLESS: &[&str] = &[
    "secretname",
    "secretref",
    "secretkeyref",
    "automountserviceaccounttoken",
    "imagepullsecrets",
];
/// Fields that nobody needs, and that repeat others.
const DROPPED: &[&str] = &[
    "managedFields",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// Takes the secrets out of an object.
pub(crate) fn object(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !DROPPED.contains(&key.as_str()));
            // An environment variable, or a header: its name says what its value is.
            let named = map
                .get("name")
                .and_then(Value::as_str)
                .is_some_and(is_secret);
            for (key, inner) in map.iter_mut() {
                let is_scalar = inner.is_string() || inner.is_number();
                if is_scalar && (is_secret(key) || (named && key == "value")) {
                    *inner = Value::from(GONE);
                } else {
                    object(inner);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(object),
        Value::String(said) => *said = text(said),
        _ => {}
    }
}

/// Whether what has this name is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_harmless = HARMLESS.iter().any(|harmless| name.ends_with(harmless));
    !is_harmless && NAMES.iter().any(|part| name.contains(part))
}

/// Takes the secrets out of a text, line by line: private keys, tokens, what follows a name of a secret, and the
/// passwords and parameters of URLs.
pub(crate) fn text(said: &str) -> String {
    let mut in_key = false;
    let lines = said.split_inclusive('\n').filter_map(|line| {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            in_key = true;
            let end = if line.ends_with('\n') { "\n" } else { "" };
            // A key in one line, with its ends of lines escaped.
            in_key = !line.contains("-----END");
            return Some(format!("{GONE}{end}"));
        }
        if in_key {
            in_key = !line.contains("-----END");
            return None;
        }
        Some(one_line(line))
    });
    lines.collect()
}

fn one_line(line: &str) -> String {
    let mut result = String::with_capacity(line.len());
    // The next word is a value: its name, or `Bearer`, stood before it.
    let mut is_value = false;
    for word in line.split_inclusive(|c: char| c.is_whitespace()) {
        let end = word.len() - word.trim_end().len();
        let (body, space) = word.split_at(word.len() - end);
        if body.is_empty() {
            result.push_str(word);
            continue;
        }
        let scheme = body.trim_matches(['"', ',', ':', '=']).to_ascii_lowercase();
        if is_value && !matches!(&*scheme, "bearer" | "basic" | "") {
            result.push_str(GONE);
            is_value = false;
        } else {
            let (clean, opens) = one_word(body);
            result.push_str(&clean);
            is_value = is_value || opens || matches!(&*scheme, "bearer" | "basic");
        }
        result.push_str(space);
    }
    result
}

/// A word without its secret, and whether the next word is one.
fn one_word(word: &str) -> (String, bool) {
    if word.contains("eyJ") && word.matches('.').count() >= 2 {
        return (GONE.to_owned(), false);
    }
    if let Some((scheme, rest)) = word.split_once("://") {
        return (format!("{scheme}://{}", url(rest)), false);
    }
    if let Some(at) = word.find(['=', ':']) {
        let (name, value) = word.split_at(at);
        if is_secret(name) {
            let value = value.trim_matches(['=', ':', '"', '\'', '\\']);
            return if value.is_empty() {
                (word.to_owned(), true)
            } else {
                (format!("{}{GONE}", &word[..=at]), false)
            };
        }
    }
    (word.to_owned(), false)
}

/// What follows `://`, without user information and parameters.
fn url(rest: &str) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{GONE}@{host}"),
        None => authority.to_owned(),
    };
    match path.split_once('?') {
        Some((path, _)) => format!("{authority}{path}?{GONE}"),
        None => format!("{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn row_504_no_secret_is_left_in_a_text() {
        let hidden = "hunter2-hunter2";
        for line in [
            format!("password={hidden}"),
            format!("chap_secret: {hidden}"),
            format!("\"token\":\"{hidden}\""),
            format!("Authorization: Bearer {hidden}"),
            format!("got header \"authorization\": \"Basic {hidden}\""),
            format!("https://user:{hidden}@registry.example/v2/?a=b"),
            format!("GET https://bucket.example/x?X-Amz-Signature={hidden} 200"),
            format!("AWS_SECRET_ACCESS_KEY={hidden}"),
            format!("-----BEGIN PRIVATE KEY-----\n{hidden}\n-----END PRIVATE KEY-----\n"),
            format!("key=-----BEGIN EC PRIVATE KEY-----\\n{hidden}\\n-----END EC PRIVATE KEY-----"),
            format!("a eyJhbGciOiJSUzI1NiJ9.{hidden}.sig b"),
        ] {
            let shown = text(&line);
            assert!(!shown.contains(hidden), "{line:?} became {shown:?}");
        }
        let line = "level=INFO volume=pvc-1 msg=\"grown to 4096\" https://registry.example/v2/a\n";
        assert_eq!(text(line), line, "what is no secret stays");
    }

    #[test]
    fn row_504_no_secret_is_left_in_an_object() {
        let mut value = json!({"metadata": {"managedFields": [1], "annotations":
            {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "note": "kept"}},
            "spec": {"env": [{"name": "HTTP_PROXY", "value": "http://u:hunter2@proxy:1"},
                {"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "A", "value": "kept"}],
                "secretName": "kept", "args": ["--chap-secret=hunter2"], "chapSecret": "hunter2"}});
        object(&mut value);
        let shown = value.to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(shown.matches("kept").count(), 3, "{shown}");
    }
}
