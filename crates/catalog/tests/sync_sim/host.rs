//! One host of the simulation: a disk that outlives it, the real sync server and receiver, and the
//! life of its image as the product's state machine has it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use catalog::Lifecycle;
use catalog::lifecycle::{Event, Failure, Progress};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use store::SealedImage;
use store::sidecar::{AskedFor, Seal as Sealing, Sidecar, Stamp};
use sync::offer::{Library, Offer};
use sync::planner::Tuning;
use sync::serve::takeover;
use sync::{Patience, PeerAddress, Receiver, Settings, Swarm, Wanted, serve};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use trust::Caller;
use types::{Classify, ErrorKind, ImageId, Sha512, report};

use crate::disk::{CHUNK, Copy, Disk, Served, Way, shape};
use crate::wire::{Sockets, Wire};
use crate::world::{Random, Shared};

pub(crate) const PORT: u16 = 8001;

/// What a host is and keeps; its software may crash and start again.
#[derive(Debug)]
pub(crate) struct Host {
    pub name: String,
    /// Names of those who are said to have the image.
    pub given: Vec<String>,
    /// What the image must be.
    pub expected: Sha512,
    /// It gives what is wrong as if it were right, on purpose: nothing is expected of it.
    pub liar: bool,
    /// The SHA-512 of a wrong copy that it has from the beginning.
    pub spoiled: Option<Sha512>,
    /// Its store believes what it is told: to show that the simulation notices.
    pub gullible: bool,
    pub disk: Mutex<Disk>,
    pub life: Mutex<Lifecycle>,
    pub doubted: Notify,
    pub random: Mutex<Random>,
    pub sockets: Arc<Sockets>,
    pub shared: Arc<Shared>,
}

pub(crate) fn id() -> ImageId {
    ImageId::new("image", "0123abcd").unwrap()
}

impl Host {
    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    pub(crate) fn draw(&self, below: u64) -> u64 {
        self.random.lock().unwrap().below(below)
    }

    /// Whether its disk and its wires misbehave now.
    pub(crate) fn is_moody(&self) -> bool {
        self.shared.is_faulty()
    }

    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.shared
            .note(format!("{:>6} {} {what}", at.as_millis(), self.name));
    }

    pub(crate) fn wrong(&self, what: impl std::fmt::Display) {
        self.shared.wrong(format!("{}: {what}", self.name));
    }

    /// Somebody says that the copy is damaged.
    pub(crate) fn doubt(&self) {
        self.note("is doubted");
        self.doubted.notify_one();
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(*self.life.lock().unwrap(), Lifecycle::Ready(_))
    }

    /// Moves the image through its life. A move that the diagram does not have is a bug, and so is an
    /// image that is ready and not the one that is meant.
    fn step(&self, event: Event) {
        let mut life = self.life.lock().unwrap();
        match life.on(event) {
            Ok(next) => {
                if next.name() != life.name() {
                    self.note(format_args!("{} -> {}", life.name(), next.name()));
                }
                *life = next;
            }
            Err(illegal) => self.wrong(illegal),
        }
        if let Lifecycle::Ready(_) = *life {
            let copy = self.disk().complete.clone();
            let sum = copy.map(|copy| Sha512::of(&copy.bytes));
            // Nobody has looked at what was there from the beginning.
            if sum != Some(self.expected) && (sum.is_none() || sum != self.spoiled) {
                self.wrong(format_args!("ready with {sum:?}"));
            }
        }
    }

    fn fail(&self, kind: ErrorKind, message: String) {
        self.note(&message);
        self.step(Event::Failed(Failure {
            kind,
            message,
            found: None,
        }));
    }
}

/// What the host does from its start until it crashes.
pub(crate) async fn run(host: Arc<Host>) -> turmoil::Result {
    let _last = host.sockets.closed_in_order();
    let mut settings = settings();
    settings.seed = Some(host.draw(u64::MAX));
    let swarm = Swarm::new(settings);
    let shelf = Shelf {
        host: host.clone(),
        swarm: swarm.clone(),
    };
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    let router = serve::router(swarm.clone(), shelf);
    tokio::spawn(answer(listener, host.sockets.clone(), router));
    *host.life.lock().unwrap() = Lifecycle::Pending;
    host.note("starts");
    if host.disk().complete.is_some() {
        // As a start does with a sealed image that stat(2) finds untouched.
        *host.life.lock().unwrap() = Lifecycle::Unknown("loading".to_owned());
        host.step(Event::Sealed(sealed(host.expected)));
    }
    let receiver = Receiver::new(swarm, Wire(host.sockets.clone()));
    loop {
        if host.is_ready() {
            host.doubted.notified().await;
            look_again(&host);
        } else {
            receive(&host, &receiver).await;
        }
        let failed = matches!(*host.life.lock().unwrap(), Lifecycle::Failed(_));
        if failed {
            tokio::time::sleep(Duration::from_millis(300 + host.draw(200))).await;
            host.step(Event::Retry);
        }
    }
}

/// Reads a copy that is in doubt, and sets it aside if it is damaged.
fn look_again(host: &Host) {
    host.step(Event::Modified("doubted".to_owned()));
    let mut disk = host.disk();
    let good = disk
        .complete
        .as_ref()
        .is_some_and(|copy| Some(Sha512::of(&copy.bytes)) == copy.manifest.checksum);
    if good || host.liar {
        drop(disk);
        host.step(Event::Sealed(sealed(host.expected)));
    } else {
        disk.complete = None;
        drop(disk);
        host.fail(ErrorKind::DataLoss, "its copy is damaged".to_owned());
    }
}

async fn receive(host: &Arc<Host>, receiver: &Receiver<Wire>) {
    host.step(Event::Begin);
    let address =
        |name: &String| PeerAddress::from(SocketAddr::new(turmoil::lookup(name.as_str()), PORT));
    let wanted = Wanted {
        id: id(),
        peers: host.given.iter().map(address).collect(),
        size: None,
        expected: Some(host.expected),
    };
    let progress = |processed, total| host.step(Event::Bytes(Progress { processed, total }));
    let way = Way(host.clone());
    let cancel = CancellationToken::new();
    let received = receiver.receive(&wanted, &way, &progress, &cancel).await;
    match received {
        Ok(copy) => {
            // The steps of the seal; a crash may come between them.
            tokio::time::sleep(Duration::from_millis(host.draw(40))).await;
            let mut disk = host.disk();
            disk.complete = Some(copy);
            disk.part = None;
            drop(disk);
            host.step(Event::Sealed(sealed(host.expected)));
        }
        Err(error) => host.fail(error.kind(), report(&error).to_string()),
    }
}

fn settings() -> Settings {
    let ms = Duration::from_millis;
    Settings {
        port: Some(PORT),
        chunk: CHUNK,
        rate: 0,
        // It takes threads, and with them the order of events.
        serves_max: 6,
        buffers: 4,
        piece: CHUNK as usize,
        send_stall: ms(2000),
        patience: Patience {
            connect: ms(500),
            stall: ms(1000),
            chunk: ms(3000),
        },
        tuning: Tuning {
            streams_max: 6,
            peer_streams_max: 3,
            run_max: 4,
            pause_first: ms(50),
            pause_max: ms(1000),
            patience: ms(4000),
            strikes_max: 3,
            failures_max: 4,
            have_interval: ms(150),
            hedge_after: ms(400),
        },
        tick: ms(50),
        seed: None,
    }
}

/// A seal as the store would make it; only the store's own can be, here it stands for one.
fn sealed(checksum: Sha512) -> Box<SealedImage> {
    let seal = Sealing {
        version: 1,
        stamp: Stamp {
            inode: 1,
            size: 1,
            modified: (0, 0),
            changed: (0, 0),
        },
        format: "raw".to_owned(),
        provenance: store::Provenance::Unknown,
        manifest_digest: String::new(),
        unverified: false,
        asked: AskedFor::default(),
        content: store::Content::default(),
        created_at: String::new(),
        extents: 1,
        source_checksums: Vec::new(),
        checksum_unproven: false,
    };
    let sidecar = Sidecar {
        name: String::new(),
        uuid: id().uuid,
        size: 1,
        virtual_size: 1,
        real_size: 1,
        expected_checksum: String::new(),
        current_checksum: checksum.to_string(),
        modification_time: String::new(),
        seal: Some(seal.clone()),
    };
    Box::new(SealedImage::for_tests(id(), sidecar, seal))
}

/// What the host can send.
#[derive(Debug, Clone)]
struct Shelf {
    host: Arc<Host>,
    swarm: Swarm,
}

impl Library for Shelf {
    async fn find(&self, id: &ImageId, _: &Caller) -> Result<Arc<dyn Offer>, String> {
        let complete: Option<Copy> = self.host.disk().complete.clone();
        if let Some(copy) = complete.filter(|_| self.host.is_ready()) {
            let (geometry, seal) = shape(&copy.manifest);
            return Ok(Arc::new(Served {
                host: self.host.clone(),
                geometry,
                seal,
                whole: true,
                ended: CancellationToken::new(),
            }));
        }
        self.swarm
            .part(id)
            .ok_or_else(|| "it is not here".to_owned())
    }
}

async fn answer(listener: turmoil::net::TcpListener, sockets: Arc<Sockets>, router: Router) {
    while let Ok((stream, from)) = listener.accept().await {
        let (stream, router) = (sockets.keep(stream), router.clone());
        let from: IpAddr = from.ip();
        let answer = move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            let info = ConnectInfo(SocketAddr::new(from, 0));
            request.extensions_mut().insert(info);
            router.clone().oneshot(request).boxed()
        };
        tokio::spawn(async move {
            let builder = hyper::server::conn::http1::Builder::new();
            // Who breaks off is part of the play.
            let _ = takeover::serve(stream, &builder, answer, std::future::pending()).await;
        });
    }
}
