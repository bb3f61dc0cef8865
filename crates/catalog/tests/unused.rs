//! Unrequested images are removed, and nothing else is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::source::{Source, Sources};
use catalog::{Catalog, Lifecycle, NewImage, users};
use fetch::{AddressPolicy, Config, Credentials, Network, Tuning};
use store::sidecar::AskedFor;
use store::{Disk, Facts, ImageStore, Place, Provenance};
use tokio_util::sync::CancellationToken;
use types::{ByteSize, Cancel, ImageId, ImageName, NodeId, VolumeName};
use volume::owner::{Driver, Owner};
use volume::{NewVolume, Origin, Reserved, Template, Volumes};

struct Fixture {
    _dir: tempfile::TempDir,
    store: ImageStore,
    volumes: Volumes,
    catalog: Catalog,
}

impl Fixture {
    /// A disk with these images.
    fn new(images: &[(&str, Facts)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Disk::init(dir.path(), None).unwrap();
        let disk = Arc::new(Disk::open(dir.path()).unwrap());
        let store = ImageStore::new(disk.clone(), Place::Images);
        for (name, facts) in images {
            let id = id(name);
            let mut ingest = store.begin(&id, Cancel::never()).unwrap();
            ingest.write(&[7; 8192]).unwrap();
            store.seal(&id, ingest.finish().unwrap(), facts).unwrap();
        }
        let network = Network::new(
            Config::default(),
            AddressPolicy::unrestricted(),
            Tuning::default(),
        );
        let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
        let stop = CancellationToken::new();
        let catalog = Catalog::load(store.clone(), sources, stop).unwrap();
        let volumes = Volumes::load(disk, NodeId::new("node").unwrap()).unwrap();
        Self {
            _dir: dir,
            store,
            volumes,
            catalog,
        }
    }

    fn names(&self) -> Vec<String> {
        let images = self.catalog.list();
        images
            .iter()
            .map(|image| image.id.name.to_string())
            .collect()
    }

    /// What the daemon does from time to time.
    async fn look(&self, after: Duration) {
        self.catalog.note_users(&users(&self.volumes).unwrap());
        self.catalog.remove_unused(&self.volumes, after).await;
    }

    /// An image that fails at once: there is no such file.
    fn fail(&self, name: &str, for_volumes: bool) {
        let new = NewImage {
            name: Some(ImageName::new(name).unwrap()),
            uuid: None,
            source: Some(Source::File("/no/such/file".into())),
            expected: None,
            format: None,
            size: 0,
            existing: catalog::Existing::Join,
            for_volumes,
        };
        self.catalog.create(new).unwrap();
    }

    async fn wait_until_all_failed(&self) {
        for image in self.catalog.list() {
            let mut watch = self.catalog.watch(&image.id.name, None).unwrap();
            let failed = watch.wait_for(|image| matches!(image.state, Lifecycle::Failed(_)));
            tokio::time::timeout(Duration::from_mins(5), failed)
                .await
                .expect("in time")
                .unwrap();
        }
    }
}

fn id(name: &str) -> ImageId {
    ImageId::new(name, "a93b9a55").unwrap()
}

fn for_volumes(provenance: Provenance) -> Facts {
    Facts {
        provenance,
        asked: AskedFor {
            for_volumes: true,
            private: false,
        },
        ..Facts::default()
    }
}

fn volume(name: &str, image: &str) -> NewVolume {
    NewVolume {
        name: VolumeName::new(name).unwrap(),
        origin: Origin::Image(id(image).name, None),
        required: Some(ByteSize(8192)),
        limit: None,
        number_of_replicas: 1,
        stale_replica_timeout: 20,
        fs_type: String::new(),
        partition: None,
        owner: Owner::new(Driver::Csi, String::new(), String::new()).unwrap(),
        parameters: BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_203_only_images_that_drivers_had_made_go_when_no_volume_uses_them() {
    let images = [
        ("used", for_volumes(Provenance::uploaded(""))),
        ("unused", for_volumes(Provenance::uploaded(""))),
        ("asked-for", Facts::default()),
    ];
    let fixture = Fixture::new(&images);
    let Lifecycle::Ready(image) = fixture.catalog.get(&id("used").name, None).unwrap().state else {
        panic!()
    };
    let raw = fixture.store.raw_form(&image).unwrap().unwrap();
    let Reserved::New(vacancy) = fixture.volumes.reserve(volume("v", "used")).unwrap() else {
        panic!()
    };
    let (image, raw) = (&image, &*raw);
    vacancy.make(Some(Template { image, raw })).unwrap();
    fixture.look(Duration::from_hours(1)).await;
    assert_eq!(
        fixture.names(),
        ["asked-for", "unused", "used"],
        "not for an hour yet"
    );
    let usage = |name: &str| fixture.catalog.usage(&id(name)).unwrap();
    assert_eq!((usage("used").volumes, usage("unused").volumes), (1, 0));
    assert!(usage("used").unused_since.is_none());
    let since = usage("unused").unused_since.unwrap();
    fixture
        .catalog
        .note_users(&users(&fixture.volumes).unwrap());
    assert_eq!(
        usage("unused").unused_since,
        Some(since),
        "the moment stays"
    );
    fixture.look(Duration::ZERO).await;
    assert_eq!(fixture.names(), ["asked-for", "used"]);
    // Its last volume goes.
    fixture
        .volumes
        .delete(&VolumeName::new("v").unwrap())
        .unwrap();
    fixture.look(Duration::ZERO).await;
    assert_eq!(fixture.names(), ["asked-for"]);
    assert!(!fixture.store.paths(&id("used")).dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_203_an_image_that_somebody_else_asks_for_as_well_stays() {
    let fixture = Fixture::new(&[(
        "image",
        for_volumes(Provenance::File {
            path: "/no/such/file".into(),
        }),
    )]);
    fixture.fail("image", false);
    assert!(
        !fixture
            .catalog
            .get(&id("image").name, None)
            .unwrap()
            .for_volumes
    );
    fixture.look(Duration::ZERO).await;
    assert_eq!(fixture.names(), ["image"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_202_failed_images_of_drivers_are_forgotten_and_few_at_any_time() {
    let fixture = Fixture::new(&[]);
    fixture.fail("longhorns", false);
    for number in 0..150 {
        fixture.fail(&format!("driver-{number:03}"), true);
    }
    fixture.wait_until_all_failed().await;
    let now = Instant::now();
    // The tasks that have told it end at once after that.
    let few = async {
        while fixture.names().len() > 101 {
            fixture.catalog.forget_failed(now);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), few)
        .await
        .expect("in time");
    let names = fixture.names();
    assert_eq!(names.len(), 101);
    assert!(
        names.contains(&"driver-149".to_owned()),
        "the last ones stay"
    );
    assert!(!names.contains(&"driver-000".to_owned()));
    fixture.catalog.forget_failed(now + Duration::from_mins(59));
    assert_eq!(fixture.names().len(), 101);
    let forgotten = async {
        while fixture.names().len() > 1 {
            fixture.catalog.forget_failed(now + Duration::from_hours(2));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), forgotten)
        .await
        .expect("in time");
    assert_eq!(fixture.names(), ["longhorns"]);
    // And may be asked for again.
    fixture.fail("driver-000", true);
    assert_eq!(fixture.names().len(), 2);
}
