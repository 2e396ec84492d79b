// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pushes to registries that break connections in the middle of a blob, and keep what they have of it, or do not.

use super::server::{Answer, Received, Server};
use super::{Image, pull_from, store};
use oci_image::{Digest, ImageName, Platform};
use registry::{Credentials, Push, Pushed, Registries, Store, push};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of a request that the registry reads before it closes the connection.
const CUT: u64 = 500_000;

fn push_to(server: &Server, store: &Store) -> Pushed {
    push(&Push {
        image: &store.images().unwrap()[0],
        target: &ImageName::parse(&format!("{}/x/y", server.authority())).unwrap(),
        store,
        platform: &Platform::default(),
        credentials: &Credentials::default(),
        registries: &Registries::default(),
        verify: true,
        progress: &|_, _| {},
    })
    .unwrap()
}

/// What a registry has received.
#[derive(Default)]
struct Uploads {
    begun: Vec<Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Uploads {
    /// Answers as the specification has it. A request that was not read to its end gets no answer, and what was read is kept.
    fn answer(&mut self, request: &Received) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let place = |id: usize| format!("/v2/x/y/blobs/uploads/{id}");
        if path.starts_with("/v2/x/y/manifests/") {
            return Answer::new(201, "");
        }
        if path == "/v2/x/y/blobs/uploads/" {
            self.begun.push(Vec::new());
            return Answer::new(202, "").header("location", place(self.begun.len() - 1));
        }
        let Some(id) = path.strip_prefix("/v2/x/y/blobs/uploads/") else {
            let is_here = self.blobs.keys().any(|digest| path.ends_with(digest));
            return Answer::new(if is_here { 200 } else { 404 }, "");
        };
        let id = id.parse().expect("an upload has a number");
        let upload: &mut Vec<u8> = &mut self.begun[id];
        if let Some(range) = request.header("content-range")
            && !range.starts_with(&format!("{}-", upload.len()))
        {
            return Answer::new(416, "");
        }
        upload.extend_from_slice(&request.body);
        let is_whole = request.header("content-length").is_none_or(|length| length == request.body.len().to_string());
        let range = format!("0-{}", upload.len().saturating_sub(1));
        let accepted = |status| Answer::new(status, "").header("location", place(id)).header("range", range.clone());
        match request.method.as_str() {
            _ if !is_whole => Answer { silent: true, ..Answer::default() },
            "GET" => accepted(204),
            "PATCH" => accepted(202),
            _ if query == format!("digest={}", Digest::of(upload)) => {
                self.blobs.insert(Digest::of(upload).to_string(), upload.clone());
                Answer::new(201, "")
            }
            _ => Answer::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#),
        }
    }
}

/// Pushes to a registry that reads `limit` bytes of a body, and answers as `change` has it. Returns method, range and bytes of
/// each request that is part of the layer's upload.
fn pushed(
    limit: impl Fn(&Received) -> u64 + Send + Sync + 'static,
    change: impl Fn(&mut Uploads, &Received) -> Option<Answer> + Send + Sync + 'static,
) -> Vec<String> {
    let (image, (_directory, store)) = (Image::new(), store());
    let served = image.clone();
    pull_from(&Server::start(move |request| served.answer(request)), &store, &Credentials::default()).unwrap();
    let uploads = Arc::new(Mutex::new(Uploads::default()));
    let received = uploads.clone();
    let server = Server::start_reading(limit, move |request| {
        let uploads = &mut *received.lock().unwrap();
        change(uploads, request).unwrap_or_else(|| uploads.answer(request))
    });
    let outcome = push_to(&server, &store);
    assert_eq!((outcome.sent, outcome.mounted, outcome.present), (2, 0, 0));
    let digest = Digest::of(&image.layer).to_string();
    assert!(uploads.lock().unwrap().blobs[&digest] == image.layer);
    let of_layer = |request: &&Received| {
        let is_configuration = request.body.first() == Some(&b'{');
        request.path.contains("/uploads/") && request.method != "POST" && !is_configuration
    };
    let shown = |request: &Received| {
        let range = request.header("content-range").map(|range| format!(" {range}")).unwrap_or_default();
        format!("{}{range}: {}", request.method, request.body.len())
    };
    server.received().iter().filter(of_layer).map(shown).collect()
}

#[test]
fn upload_goes_on_where_it_stopped() {
    let requests = pushed(|_| CUT, |_, _| None);
    let expected =
        ["PUT: 500000", "GET: 0", "PATCH 500000-1199999: 500000", "GET: 0", "PATCH 1000000-1199999: 200000", "PUT: 0"];
    assert_eq!(requests, expected);
}

#[test]
fn upload_that_is_complete_is_only_finished() {
    let is_broken = AtomicBool::new(false);
    let requests = pushed(
        |_| CUT,
        move |uploads, request| {
            let is_last = request.method == "PATCH" && request.body.len() < CUT as usize;
            if !is_last || is_broken.swap(true, Ordering::SeqCst) {
                return None;
            }
            // The connection breaks before the answer.
            uploads.answer(request);
            Some(Answer { silent: true, ..Answer::default() })
        },
    );
    assert_eq!(requests[4..], ["PATCH 1000000-1199999: 200000", "GET: 0", "PUT: 0"]);
}

#[test]
fn registry_that_keeps_nothing_is_sent_the_blob_again() {
    for (status, range) in [(404, ""), (204, "0-0"), (204, "0-99999999"), (204, "bytes 0-"), (200, ""), (416, "0-9")] {
        let asked = Arc::new(AtomicBool::new(false));
        let seen = asked.clone();
        let requests = pushed(
            move |_| if seen.load(Ordering::SeqCst) { u64::MAX } else { CUT },
            move |_, request| {
                let is_question = request.method == "GET" && request.path.contains("/uploads/");
                asked.fetch_or(is_question, Ordering::SeqCst);
                is_question.then(|| Answer::new(status, "").header("range", range))
            },
        );
        assert_eq!(requests, ["PUT: 500000", "GET: 0", "PUT: 1200000"], "{status} {range}");
    }
}

#[test]
fn registry_that_damages_what_it_keeps_is_sent_the_blob_again() {
    let requests = pushed(
        |request| if request.path.contains("/uploads/2") { u64::MAX } else { CUT },
        |uploads, request| {
            let answer = uploads.answer(request);
            let first = uploads.begun.iter_mut().take(2).find(|upload| upload.len() == CUT as usize);
            // The other blob may be sent meanwhile: done twice it is still damaged.
            first.into_iter().filter(|_| request.method == "PUT").for_each(|upload| upload[1000..1016].fill(0xff));
            Some(answer)
        },
    );
    let last = ["PATCH 1000000-1199999: 200000", "PUT: 0", "PUT: 1200000"];
    assert_eq!(requests[requests.len() - 3..], last);
}
