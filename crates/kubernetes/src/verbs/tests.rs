//! Against a small server with prepared answers. Against the real one: `csi/tests/objects.rs`.

use serde::Deserialize;
use types::{Classify as _, ErrorKind};

use super::*;
use crate::api::tests::{asked, server, server_of};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Spec {
    size: u64,
}
type Thing = Object<Spec, Spec>;
const THINGS: Resource<Spec, Spec> = Resource::of_cluster("g.io", "v1alpha1", "things", "Thing");

fn thing(name: &str, size: &Value) -> Value {
    json!({"metadata": {"name": name, "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
            "managedFields": [{"manager": "x"}], "annotations": {"k": "v"}},
        "spec": {"size": size}})
}

#[tokio::test]
async fn an_object_is_replaced_with_everything_that_others_put_on_it() {
    let (api, server, _account) = server(200, thing("t", &json!(1)).to_string()).await;
    let mut object: Thing = api.get(&THINGS, "t").await.unwrap().unwrap();
    assert_eq!(asked(&server).0, "GET /apis/g.io/v1alpha1/things/t");
    assert_eq!((object.version.as_str(), object.spec.size), ("7", 1));
    assert_eq!(object.annotations["k"], "v");
    assert_eq!(object.status, None);
    object.spec.size = 2;
    let written = api.replace(&THINGS, &mut object).await.unwrap();
    assert_eq!(written, Written::Done);
    assert_eq!(object.spec.size, 1, "what is stored, as the answer says");
    let (line, kind, body) = asked(&server);
    assert_eq!(
        line,
        "PUT /apis/g.io/v1alpha1/things/t?fieldManager=longhorn-base-image"
    );
    assert_eq!(kind, "application/json");
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"apiVersion": "g.io/v1alpha1", "kind": "Thing",
        "metadata": {"name": "t", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
            "annotations": {"k": "v"}}, "spec": {"size": 2}});
    assert_eq!(body, expected);
    object.status = Some(Spec { size: 3 });
    api.replace_status(&THINGS, &mut object).await.unwrap();
    let (line, _, body) = asked(&server);
    assert!(
        line.starts_with("PUT /apis/g.io/v1alpha1/things/t/status?"),
        "{line}"
    );
    assert!(body.contains(r#""status":{"size":3}"#), "{body}");
    api.delete(&THINGS, &object).await.unwrap();
    let (line, _, body) = asked(&server);
    assert_eq!(line, "DELETE /apis/g.io/v1alpha1/things/t");
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"preconditions": {"uid": "u", "resourceVersion": "7"}});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn what_others_did_meanwhile_is_an_outcome() {
    let read: Thing = Object::read(thing("t", &json!(1))).unwrap();
    for (status, written) in [(409, Written::Conflict), (404, Written::Missing)] {
        let (api, _, _account) = server(status, "{}").await;
        let mut object = read.clone();
        let replaced = api.replace(&THINGS, &mut object).await.unwrap();
        assert_eq!(replaced, written);
        let status = api.replace_status(&THINGS, &mut object).await.unwrap();
        assert_eq!(status, written);
        assert_eq!(object, read);
        assert_eq!(api.delete(&THINGS, &read).await.unwrap(), written);
    }
    let none = BTreeMap::new();
    let (api, server, _account) = server(409, "{}").await;
    let made = api.create(&THINGS, "t", &none, &Spec { size: 1 }).await;
    assert_eq!(made.unwrap(), Created::Exists);
    let (line, _, body) = asked(&server);
    assert!(
        line.starts_with("POST /apis/g.io/v1alpha1/things?"),
        "{line}"
    );
    assert!(body.contains(r#""name":"t""#), "{body}");
}

#[tokio::test]
async fn a_list_has_all_pages_and_says_what_it_cannot_read() {
    let pages = [
        json!({"metadata": {"continue": "abc"}, "items": [thing("a", &json!(1)), thing("b", &json!("x"))]}),
        json!({"metadata": {"continue": ""}, "items": [thing("c", &json!(3))]}),
    ];
    let pages = pages.map(|page| (200, page.to_string()));
    let (api, server, _account) = server_of(pages.into()).await;
    let listed = api.list(&THINGS).await.unwrap();
    let names: Vec<_> = listed
        .objects
        .iter()
        .map(|o: &Thing| o.name.as_str())
        .collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(listed.unreadable.len(), 1);
    assert_eq!(listed.unreadable[0].name, "b");
    assert_eq!(
        asked(&server).0,
        "GET /apis/g.io/v1alpha1/things?limit=200&continue=abc"
    );
}

#[tokio::test]
async fn a_list_that_took_too_long_begins_again_and_an_endless_one_ends() {
    let first = json!({"metadata": {"continue": "abc"}, "items": [thing("a", &json!(1))]});
    let pages = vec![
        (200, first.to_string()),
        (410, "{}".to_owned()),
        (200, json!({"metadata": {}, "items": []}).to_string()),
    ];
    let (api, _, _account) = server_of(pages).await;
    let listed = api.list(&THINGS).await.unwrap();
    assert_eq!(listed.objects.len(), 0);
    let many: Vec<_> = (0..200)
        .map(|n| thing(&format!("a{n}"), &json!(1)))
        .collect();
    let endless = json!({"metadata": {"continue": "abc"}, "items": many});
    let (api, _, _account) = server(200, endless.to_string()).await;
    let error = api.list(&THINGS).await.unwrap_err();
    assert!(error.to_string().contains("10000"), "{error}");
    let astray = json!({"metadata": {"continue": "a&b=c"}, "items": []});
    let (api, _, _account) = server(200, astray.to_string()).await;
    assert!(api.list(&THINGS).await.is_err());
}

#[tokio::test]
async fn errors_say_what_the_api_server_says_and_what_to_apply() {
    let invalid = r#"{"reason": "Invalid", "message": "spec.size: must be 1"}"#;
    for (status, answer, kind, words) in [
        (
            422,
            invalid,
            ErrorKind::Unavailable,
            "422 (Invalid): spec.size",
        ),
        (
            403,
            "{}",
            ErrorKind::PermissionDenied,
            "{apiGroups: [g.io], resources: [things], verbs: [create]}",
        ),
        (
            404,
            "{}",
            ErrorKind::FailedPrecondition,
            "apply the manifests",
        ),
    ] {
        let (api, _, _account) = server(status, answer).await;
        let made = api
            .create(&THINGS, "t", &BTreeMap::new(), &Spec { size: 1 })
            .await;
        let error = made.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains("create the Thing t"),
            "{text}"
        );
    }
}
