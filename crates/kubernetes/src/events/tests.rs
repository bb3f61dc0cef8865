use serde_json::Value;

use super::*;
use crate::api::tests::{asked, server_of};

fn answers() -> Vec<(u16, String)> {
    let claim = json!({"metadata": {"name": "data", "uid": "u-1", "resourceVersion": "9"}});
    let event = json!({"metadata": {"name": "data.x7"}});
    vec![
        (200, claim.to_string()),
        (201, event.to_string()),
        (200, "{}".to_owned()),
    ]
}

#[tokio::test]
async fn an_event_is_made_once_and_counted_up() {
    let (api, server, _account) = server_of(answers()).await;
    let events = Events::new(Arc::new(api), "longhorn-base-image");
    let claim = Regarding::claim("apps", "data");
    let said = events.say(&claim, Level::Warning, "Degraded", "1 of 3");
    assert!(said.await.unwrap());
    let (line, _, body) = asked(&server);
    assert_eq!(line, "POST /api/v1/namespaces/apps/events");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["involvedObject"]["uid"], "u-1");
    assert_eq!(body["involvedObject"]["namespace"], "apps");
    assert_eq!(
        (&body["type"], &body["reason"]),
        (&json!("Warning"), &json!("Degraded"))
    );
    let said = events.say(&claim, Level::Warning, "Degraded", "1 of 3");
    assert!(!said.await.unwrap());
    assert_eq!(asked(&server).0, line, "the same is not said again at once");
    events
        .say(&claim, Level::Warning, "Degraded", "2 of 3")
        .await
        .unwrap();
    let (line, kind, body) = asked(&server);
    assert_eq!(line, "PATCH /api/v1/namespaces/apps/events/data.x7");
    assert_eq!(kind, "application/merge-patch+json");
    assert!(
        body.contains(r#""count":3"#) && body.contains("2 of 3"),
        "{body}"
    );
}

#[tokio::test]
async fn of_what_does_not_exist_nothing_is_said() {
    let (api, server, _account) = server_of(vec![(404, "{}".to_owned())]).await;
    let events = Events::new(Arc::new(api), "longhorn-base-image");
    let volume = Regarding::volume("v");
    let said = events.say(&volume, Level::Normal, "Made", "");
    assert!(!said.await.unwrap());
    assert_eq!(asked(&server).0, "GET /api/v1/persistentvolumes/v");
    let astray = Regarding::claim("a/b", "..");
    events
        .say(&astray, Level::Normal, "Made", "")
        .await
        .unwrap();
    assert_eq!(asked(&server).0, "GET /api/v1/persistentvolumes/v");
}

#[tokio::test]
async fn the_claim_of_a_volume_is_what_it_refers_to() {
    let volume = json!({"spec": {"claimRef": {"namespace": "apps", "name": "data"}}});
    let none = json!({"spec": {}});
    let answers = vec![(200, volume.to_string()), (200, none.to_string())];
    let (api, _, _account) = server_of(answers).await;
    let claim = api.claim_of("pvc-1").await.unwrap();
    assert_eq!(claim, Some(Regarding::claim("apps", "data")));
    assert_eq!(api.claim_of("pvc-1").await.unwrap(), None);
    assert_eq!(api.claim_of("../x").await.unwrap(), None);
}
