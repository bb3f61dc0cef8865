//! The records of replicated volumes and what belongs to them at the real API server, with the rights of the manifests: the
//! kind agrees with our types, changes are compare-and-swap, Events are shown, one controller leads.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use e2e::{KubeApi, Sandbox, block_on};
use kubernetes::{
    Api, Condition, Conditioned, Created, Error, Events, Kind, Leadership, Level, Object,
    Regarding, Resource, Written,
};
use replication::{
    Address, Connection, DiskState, Generation, Health, Loss, Member, MemberId, MemberStatus,
    Origin, Reason, Record, Role, Status,
};
use serde_json::{Value, json};
use types::{ByteSize, DiskUuid, ImageId, NodeId, VolumeName};

type Shown = Conditioned<Status>;
type Stored = Object<Record, Shown>;

const RECORDS: Resource<Record, Shown> = Resource::of_cluster(
    "baseimage.longhorn.io",
    "v1alpha1",
    "replicatedvolumes",
    "ReplicatedVolume",
);

fn member(id: u8) -> Value {
    json!({"id": id, "node": format!("n{id}"), "address": "10.1.0.1", "disk": format!("d{id}"), "create": true, "asFirst": true, "apart": true})
}

/// A record in which every field says something.
fn spec() -> Value {
    json!({
        "generation": 3, "size": 10_737_418_240_u64, "numberOfReplicas": 3, "staleReplicaTimeout": 20,
        "origin": {"image": {"id": {"name": "i", "uuid": "u"}, "checksum": "0a".repeat(64)}},
        "address": {"minor": 1000, "port": 20000},
        "members": [member(0), member(1)], "initialized": true, "dayZero": "8000000000000ABC", "whole": [0], "holder": "n0",
        "readers": ["n1"], "lost": [{"member": 1, "since": 1_700_000_000}], "evacuate": ["n2"],
        "leftovers": [member(2)], "tls": true, "deleting": true,
    })
}

fn status() -> Value {
    json!({
        "health": "Degraded", "reason": "ReplicaLost", "message": "words", "size": "10Gi", "replicas": "2/3",
        "current": 2, "wanted": 3, "holder": "n0",
        "members": [{"id": 0, "node": "n0", "disk": "d0", "role": "Primary", "state": "UpToDate",
            "connection": "Connected", "progress": 50, "outOfSync": 4096}],
        "conditions": [{"type": "Healthy", "status": "False", "reason": "ReplicaLost", "message": "words",
            "lastTransitionTime": "2026-11-29T00:00:00Z"}],
    })
}

fn node(n: u8) -> NodeId {
    NodeId::new(&format!("n{n}")).unwrap()
}

fn taking_part(n: u8) -> Member {
    Member {
        id: MemberId(n),
        node: node(n),
        address: "10.1.0.1".parse().unwrap(),
        disk: Some(DiskUuid::new(&format!("d{n}")).unwrap()),
        create: true,
        apart: true,
        as_first: true,
    }
}

/// Written out, so that a new field does not compile here before it is in the schema.
fn record() -> Record {
    Record {
        volume: VolumeName::new("unnamed").unwrap(),
        generation: 3,
        size: ByteSize(10 << 30),
        number_of_replicas: 3,
        stale_replica_timeout: 20,
        origin: Origin::Image {
            id: ImageId::new("i", "u").unwrap(),
            checksum: serde_json::from_value("0a".repeat(64).into()).unwrap(),
        },
        address: Some(Address {
            minor: 1000,
            port: 20000,
        }),
        members: vec![taking_part(0), taking_part(1)],
        initialized: true,
        day_zero: Some(Generation::random(0xABC)),
        whole: vec![MemberId(0)],
        holder: Some(node(0)),
        readers: vec![node(1)],
        lost: vec![Loss {
            member: MemberId(1),
            since: 1_700_000_000,
        }],
        evacuate: vec![node(2)],
        leftovers: vec![taking_part(2)],
        tls: true,
        deleting: true,
    }
}

fn shown() -> Shown {
    let status = Status {
        health: Health::Degraded,
        reason: Reason::ReplicaLost,
        message: "words".to_owned(),
        size: "10Gi".to_owned(),
        replicas: "2/3".to_owned(),
        current: 2,
        wanted: 3,
        holder: Some(node(0)),
        members: vec![MemberStatus {
            id: MemberId(0),
            node: node(0),
            disk: Some(DiskUuid::new("d0").unwrap()),
            role: Role::Primary,
            state: DiskState::UpToDate,
            connection: Connection::Connected,
            progress: Some(50),
            out_of_sync: ByteSize(4096),
        }],
    };
    let mut condition = Condition::new("Healthy", Some(false), "ReplicaLost", "words");
    "2026-11-29T00:00:00Z".clone_into(&mut condition.last_transition_time);
    Conditioned::after(None, status, vec![condition])
}

/// All variants of an enum, which does not compile when one is missing.
macro_rules! all {
    ($of:ident: $($variant:ident)+) => {{
        let all = [$($of::$variant),+];
        for one in all {
            match one {
                $($of::$variant => {})+
            }
        }
        all
    }};
}

/// Statuses with every word that one may have.
fn every_word() -> Vec<Status> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Status, &mut MemberStatus)| {
        let mut status = shown().status;
        let mut member = status.members.remove(0);
        change(&mut status, &mut member);
        status.members.push(member);
        all.push(status);
    };
    for health in all!(Health: Pending Healthy Degraded Stalled Faulty Unknown) {
        with(&|status, _| status.health = health);
    }
    for reason in all!(Reason: Creating Deleting AsWanted NoDrbd TooFewDisks ReplicaLost Resynchronising SplitBrain
        NoQuorum NoCurrentReplica DataLost NotAnswering)
    {
        with(&|status, _| status.reason = reason);
    }
    for role in all!(Role: Primary Secondary Unknown) {
        with(&|_, member| member.role = role);
    }
    for state in all!(DiskState: Diskless Failed Negotiating Inconsistent Outdated Unknown Consistent UpToDate)
    {
        with(&|_, member| member.state = state);
    }
    for connection in all!(Connection: StandAlone Connecting Connected) {
        with(&|_, member| member.connection = connection);
    }
    all
}

#[test]
fn the_samples_have_every_field_of_our_types() {
    assert_eq!(serde_json::to_value(record()).unwrap(), spec());
    assert_eq!(serde_json::to_value(shown()).unwrap(), status());
    // A field with a value that is left out would not be tried.
    let all = format!("{:?} {:?}", record(), shown());
    for nothing in ["false", "None", "[]"] {
        assert!(!all.contains(nothing), "{nothing} in {all}");
    }
}

#[test]
fn records_are_kept_by_the_real_api_server() {
    if let Some(missing) = KubeApi::missing() {
        e2e::needs::skip(&missing);
        return;
    }
    let sandbox = Sandbox::new("replicated-volume");
    let kube = KubeApi::start(&sandbox);
    let kind = "crd/replicatedvolumes.baseimage.longhorn.io";
    kube.kubectl(
        &["wait", "--for=condition=Established", kind, "--timeout=60s"],
        "",
    );
    the_kind_has_no_field_that_we_do_not(&kube, kind);
    let api = Arc::new(block_on(Api::at(kube.url(), &kube.account())).unwrap());
    block_on(what_is_stored_is_what_was_written(&api));
    people_read_it(&kube);
    block_on(what_is_not_a_record_is_refused(&api));
    block_on(lists_have_pages(&kube, &api));
    block_on(a_secret_belongs_to_a_volume(&api));
    block_on(events_are_counted_up(&kube, &api));
    block_on(one_leads(&api));
}

/// All paths of a schema, with `[]` for the elements of a list.
fn paths(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            let path = format!("{at}.{name}");
            paths(schema, &path, found);
            found.insert(path);
        }
    }
    if schema["items"].is_object() {
        paths(&schema["items"], &format!("{at}[]"), found);
    }
}

/// The same of a value.
fn paths_of(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{at}.{name}");
                paths_of(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                paths_of(element, &format!("{at}[]"), found);
            }
        }
        _ => {}
    }
}

fn the_kind_has_no_field_that_we_do_not(kube: &KubeApi, kind: &str) {
    let crd: Value = serde_json::from_str(&kube.kubectl(&["get", kind, "-o=json"], "")).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let (mut said, mut ours) = (BTreeSet::new(), BTreeSet::new());
    for (part, value) in [("spec", spec()), ("status", status())] {
        paths(&schema["properties"][part], part, &mut said);
        paths_of(&value, part, &mut ours);
    }
    assert_eq!(said, ours);
    // Every list and every text has a bound, so that every rule has one.
    let unbounded = |schema: &Value| {
        let text = schema["type"] == "string"
            && ["maxLength", "enum", "pattern", "format"]
                .iter()
                .all(|key| schema[*key].is_null());
        text || (schema["type"] == "array" && schema["maxItems"].is_null())
    };
    let mut all = vec![schema];
    while let Some(schema) = all.pop() {
        assert!(!unbounded(schema), "no bound: {schema}");
        all.extend(
            schema["properties"]
                .as_object()
                .into_iter()
                .flat_map(|of| of.values()),
        );
        all.extend(schema.get("items"));
    }
}

async fn what_is_stored_is_what_was_written(api: &Api) {
    let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let created = api
        .create(&RECORDS, "pvc-1", &annotations, &record())
        .await
        .unwrap();
    let Created::Done(mut stored) = created else {
        panic!("there is one already");
    };
    assert_eq!(stored.spec, record(), "the schema knows every field");
    assert_eq!(stored.status, None);
    let again = api
        .create(&RECORDS, "pvc-1", &annotations, &record())
        .await
        .unwrap();
    assert_eq!(again, Created::Exists);
    stored.status = Some(shown());
    let written = api.replace_status(&RECORDS, &mut stored).await.unwrap();
    assert_eq!(written, Written::Done);
    assert_eq!(stored.status, Some(shown()), "the schema knows every field");
    // Every word that a status may have.
    let mut next = shown();
    for status in every_word() {
        next.status = status;
        stored.status = Some(next.clone());
        let written = api.replace_status(&RECORDS, &mut stored).await.unwrap();
        assert_eq!(written, Written::Done);
        assert_eq!(stored.status.as_ref(), Some(&next));
    }
    stored.status = Some(shown());
    api.replace_status(&RECORDS, &mut stored).await.unwrap();
    // Of two that read the same, one writes.
    let mut other: Stored = api.get(&RECORDS, "pvc-1").await.unwrap().unwrap();
    assert_eq!(other.annotations["a"], "b");
    stored.spec.generation += 1;
    stored.spec.holder = None;
    assert_eq!(
        api.replace(&RECORDS, &mut stored).await.unwrap(),
        Written::Done
    );
    assert_eq!(stored.spec.holder, None, "what is left out is gone");
    other.spec.generation += 1;
    assert_eq!(
        api.replace(&RECORDS, &mut other).await.unwrap(),
        Written::Conflict
    );
    let status = api.replace_status(&RECORDS, &mut other).await.unwrap();
    assert_eq!(status, Written::Conflict);
    assert_eq!(
        api.delete(&RECORDS, &other).await.unwrap(),
        Written::Conflict
    );
    let Created::Done(gone) = api
        .create(&RECORDS, "pvc-2", &annotations, &record())
        .await
        .unwrap()
    else {
        panic!("there is one already");
    };
    assert_eq!(api.delete(&RECORDS, &gone).await.unwrap(), Written::Done);
    assert_eq!(api.delete(&RECORDS, &gone).await.unwrap(), Written::Missing);
    assert_eq!(
        api.replace(&RECORDS, &mut gone.clone()).await.unwrap(),
        Written::Missing
    );
    // Another one of the same name is another one.
    api.create(&RECORDS, "pvc-2", &annotations, &record())
        .await
        .unwrap();
    assert_eq!(
        api.delete(&RECORDS, &gone).await.unwrap(),
        Written::Conflict
    );
    stored.spec.holder = record().holder;
    api.replace(&RECORDS, &mut stored).await.unwrap();
}

fn people_read_it(kube: &KubeApi) {
    let table = kube.kubectl(&["get", "rv", "pvc-1"], "");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["NAME", "SIZE", "REPLICAS", "HOLDER", "STATE", "AGE"],
        "{table}"
    );
    assert_eq!(
        rows[1][..5],
        ["pvc-1", "10Gi", "2/3", "n0", "Degraded"],
        "{table}"
    );
    let wide = kube.kubectl(&["get", "rv", "pvc-1", "-o=wide"], "");
    assert!(
        wide.contains("NODES") && wide.contains("ReplicaLost"),
        "{wide}"
    );
    kube.kubectl(
        &[
            "wait",
            "--for=condition=Healthy=false",
            "rv/pvc-1",
            "--timeout=5s",
        ],
        "",
    );
}

async fn what_is_not_a_record_is_refused(api: &Api) {
    let none = BTreeMap::new();
    let stored: Stored = api.get(&RECORDS, "pvc-1").await.unwrap().unwrap();
    let change = |change: fn(&mut Record)| {
        let mut next = stored.clone();
        change(&mut next.spec);
        next
    };
    for (words, mut next) in [
        ("never shrinks", change(|record| record.size.0 -= 4096)),
        (
            "no older generation",
            change(|record| record.generation -= 1),
        ),
        (
            "never changes",
            change(|record| record.origin = Origin::Blank),
        ),
        (
            "Duplicate",
            change(|record| record.members[1].id = record.members[0].id),
        ),
    ] {
        let error = api.replace(&RECORDS, &mut next).await.unwrap_err();
        assert!(
            matches!(error, Error::Refused { status: 422, .. }),
            "{error}"
        );
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    for (what, value) in [
        ("numberOfReplicas", json!(21)),
        ("staleReplicaTimeout", json!(525_601)),
        ("address", json!({"minor": 1_048_576, "port": 20000})),
        ("address", json!({"minor": 1, "port": 80})),
        (
            "members",
            Value::from((0..33).map(|n| member(n % 32)).collect::<Vec<_>>()),
        ),
    ] {
        let mut next = spec();
        next[what] = value;
        let next: Record = serde_json::from_value(next).unwrap();
        let error = api
            .create(&RECORDS, "refused", &none, &next)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

async fn lists_have_pages(kube: &KubeApi, api: &Api) {
    let objects = (0..450).map(|n| {
        json!({"apiVersion": "baseimage.longhorn.io/v1alpha1", "kind": "ReplicatedVolume",
            "metadata": {"name": format!("many-{n:03}")}, "spec": spec()})
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
    kube.kubectl(&["create", "-f", "-"], &list.to_string());
    // The schema takes this, our types do not.
    let mut odd = spec();
    odd["members"][0]["address"] = "nowhere".into();
    let odd = json!({"apiVersion": "baseimage.longhorn.io/v1alpha1", "kind": "ReplicatedVolume",
        "metadata": {"name": "odd"}, "spec": odd});
    kube.kubectl(&["create", "-f", "-"], &odd.to_string());
    let listed = api.list(&RECORDS).await.unwrap();
    let many = listed
        .objects
        .iter()
        .filter(|one| one.name.starts_with("many-"));
    assert_eq!(many.count(), 450);
    let names: Vec<_> = listed
        .unreadable
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["odd"]);
    let error = api.get(&RECORDS, "odd").await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
}

async fn a_secret_belongs_to_a_volume(api: &Api) {
    let (name, key) = ("replicated-volume-pvc-1", "shared-secret");
    assert!(api.create_secret(name, key, "s3cret").await.unwrap());
    assert!(!api.create_secret(name, key, "other").await.unwrap());
    let stored = api.read(Kind::Secret, name).await.unwrap().unwrap();
    assert_eq!(stored.entries.get(key), Some("s3cret"));
    // Nobody changes it, also not we.
    let changes = [(key, Some("other"))];
    assert!(
        api.write(Kind::Secret, name, &stored.version, &changes)
            .await
            .is_err()
    );
    api.delete_secret(name).await.unwrap();
    api.delete_secret(name).await.unwrap();
    assert!(api.read(Kind::Secret, name).await.unwrap().is_none());
}

async fn events_are_counted_up(kube: &KubeApi, api: &Arc<Api>) {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": "pvc-1", "storageClassName": ""}});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pvc-1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": e2e::kube_api::NAMESPACE, "name": "data"},
            "csi": {"driver": "driver.longhorn.io", "volumeHandle": "pvc-1"}}});
    for object in [claim, volume] {
        kube.kubectl(&["create", "-f", "-"], &object.to_string());
    }
    let events = Events::new(api.clone(), "longhorn-base-image");
    let claim = api.claim_of("pvc-1").await.unwrap().unwrap();
    let record = Regarding::object(&RECORDS, "pvc-1");
    let volume = Regarding::volume("pvc-1");
    for note in ["1 of 3 replicas", "1 of 3 replicas", "2 of 3 replicas"] {
        for regarding in [&claim, &record, &volume] {
            let said = events
                .say(regarding, Level::Warning, "Degraded", note)
                .await;
            said.unwrap();
        }
    }
    let nobody = Regarding::volume("other");
    events
        .say(&nobody, Level::Normal, "Healthy", "words")
        .await
        .unwrap();
    assert_eq!(api.claim_of("other").await.unwrap(), None);
    for object in ["pvc/data", "rv/pvc-1", "pv/pvc-1"] {
        let described = kube.kubectl(&["describe", object], "");
        let line = described
            .lines()
            .find(|line| line.contains("2 of 3 replicas"));
        let line = line.unwrap_or_else(|| panic!("{object} has no Event: {described}"));
        assert!(line.contains("Degraded") && line.contains("x3"), "{line}");
        assert!(line.contains("longhorn-base-image"), "{line}");
        assert_eq!(described.matches("of 3 replicas").count(), 1, "{described}");
    }
}

async fn one_leads(api: &Arc<Api>) {
    let candidate = |identity: &str| {
        Leadership::seek(
            api.clone(),
            "longhorn-base-image-replication",
            identity,
            |why| {
                assert!(why.is_empty(), "{why}");
            },
        )
    };
    let first = candidate("a");
    first.gained().await;
    let second = candidate("b");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(first.leads() && !second.leads());
    first.release().await.unwrap();
    let soon = Duration::from_secs(8);
    tokio::time::timeout(soon, second.gained()).await.unwrap();
}
