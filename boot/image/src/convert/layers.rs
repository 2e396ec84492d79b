// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The layers of an image: those that the cache lacks are converted, several at a time. The caller's thread reports the progress, and
//! checks the sizes in the order of the layers, so that the same image fails in the same way whatever the cache holds and whichever
//! thread is first.

use super::ConvertError;
use crate::budget::Budget;
use crate::cache::{Claim, LayerCache, Workspace};
use crate::digest::Digest;
use crate::image::Image;
use crate::layer::{LayerStream, Totals, with_layer};
use crate::layer_files::{DATA, ENTRIES, LayerFiles, LayerSizes, write_layer};
use crate::progress::Progress;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::available_parallelism;

/// Bytes of a layer's file between two reports.
const REPORT_INTERVAL: u64 = 4 << 20;
/// Layers that are converted at the same time; each has its share of the memory.
const MAX_AT_ONCE: usize = 4;

/// The files of an image's layers.
pub(crate) struct Layers {
    /// Each layer once, in the order of its first use.
    pub files: Vec<LayerFiles>,
    /// For each layer of the image, its place in `files`.
    pub order: Vec<u32>,
    /// Uncompressed bytes of all layers of the image.
    pub uncompressed: u64,
}

/// What a thread reports of a layer.
enum Message {
    /// Another process converts it.
    Waiting,
    /// Bytes of its file that were read since the last report.
    Bytes(u64),
    /// The first layer of the image that has these files, and the outcome.
    Done(usize, Box<Result<Made, ConvertError>>),
}

struct Made {
    files: LayerFiles,
    is_new: bool,
}

/// Finds all layers of an image in the cache, or converts them. Those that were not there before are added to `converted`, whether the
/// others fail or not.
pub(super) fn find_or_convert(
    image: &Image,
    cache: &LayerCache,
    budget: &Budget,
    converted: &mut Vec<Digest>,
    report: &dyn Fn(Progress),
) -> Result<Layers, ConvertError> {
    let mut numbers = HashMap::new();
    let mut firsts = Vec::new();
    let order = image.layers.iter().enumerate().map(|(index, layer)| {
        *numbers.entry(&layer.diff_id).or_insert_with(|| {
            firsts.push(index);
            firsts.len() as u32 - 1
        })
    });
    let order: Vec<u32> = order.collect();
    let work = Work { image, cache, failed: AtomicUsize::new(usize::MAX) };
    let mut outcome = Outcome {
        work: &work,
        order: &order,
        made: firsts.iter().map(|_| None).collect(),
        failure: None,
        starved: Vec::new(),
        read: 0,
        total: image.file_bytes(),
        totals: Totals::default(),
        checked: 0,
        report,
    };
    let at_once = firsts.len().min(available_parallelism().map_or(1, usize::from)).min(MAX_AT_ONCE);
    let mut result = outcome.run(&firsts, at_once, budget);
    // With all of the memory, one after the other.
    for first in std::mem::take(&mut outcome.starved) {
        result = result.and_then(|()| outcome.run(&[first], 1, budget));
    }
    let Outcome { made, failure, totals, .. } = outcome;
    let new = made.iter().flatten().filter(|made| made.is_new);
    converted.extend(new.map(|made| made.files.diff_id.clone()));
    result?;
    if let Some((_, error)) = failure {
        return Err(error);
    }
    let made = made.into_iter().map(|made| made.expect("a layer that is missing has failed"));
    Ok(Layers { files: made.map(|made| made.files).collect(), order, uncompressed: totals.uncompressed })
}

/// What the threads share.
struct Work<'a> {
    image: &'a Image,
    cache: &'a LayerCache,
    /// The lowest layer that failed: those above it are not wanted any more.
    failed: AtomicUsize,
}

/// What the caller's thread knows.
struct Outcome<'a> {
    work: &'a Work<'a>,
    order: &'a [u32],
    /// By number of the files.
    made: Vec<Option<Made>>,
    /// Of the lowest layer that failed.
    failure: Option<(usize, ConvertError)>,
    /// Layers that need more memory than their share.
    starved: Vec<usize>,
    /// Bytes of the layers' files that are read, and all of them.
    read: u64,
    total: Option<u64>,
    /// Of the layers below the one with the number `checked`.
    totals: Totals,
    checked: usize,
    report: &'a dyn Fn(Progress),
}

impl Outcome<'_> {
    /// Converts the layers `firsts`, so many at once.
    fn run(&mut self, firsts: &[usize], at_once: usize, budget: &Budget) -> Result<(), ConvertError> {
        let work = self.work;
        let (next, shares) = (&AtomicUsize::new(0), at_once.max(1));
        std::thread::scope(|scope| {
            let (messages, received) = channel();
            for _ in 0..at_once {
                let messages = messages.clone();
                let turns = move || {
                    while let Some(first) = firsts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let made = work.layer(*first, &budget.share(shares), &messages);
                        // The receiver waits for all senders.
                        let _ = messages.send(Message::Done(*first, Box::new(made)));
                    }
                };
                let thread = std::thread::Builder::new().name("convert".into());
                thread.spawn_scoped(scope, turns).map_err(ConvertError::Thread)?;
            }
            drop(messages);
            self.show();
            for message in received {
                match message {
                    Message::Waiting => (self.report)(Progress::Waiting),
                    Message::Bytes(bytes) => {
                        self.read += bytes;
                        self.show();
                    }
                    Message::Done(first, result) => match *result {
                        Ok(made) => {
                            self.made[self.order[first] as usize] = Some(made);
                            self.check();
                        }
                        Err(error) if at_once > 1 && error.is_memory() => self.starved.push(first),
                        Err(error) => self.fail(first, error),
                    },
                }
            }
            self.starved.sort_unstable();
            Ok(())
        })
    }

    fn show(&self) {
        let count = self.order.len();
        let number = self.order.iter().filter(|number| self.made[**number as usize].is_some()).count();
        let number = (number + 1).min(count);
        if count > 0 {
            (self.report)(Progress::Layers { number, count, bytes: self.read, total: self.total });
        }
    }

    fn fail(&mut self, layer: usize, error: ConvertError) {
        self.work.failed.fetch_min(layer, Ordering::Relaxed);
        if self.failure.as_ref().is_none_or(|(lowest, _)| layer < *lowest) {
            self.failure = Some((layer, error));
        }
    }

    /// Checks the sizes of the layers up to the first one that is not there yet.
    fn check(&mut self) {
        while let Some(number) = self.order.get(self.checked)
            && let Some(made) = &self.made[*number as usize]
        {
            let LayerSizes { uncompressed, stored } = made.files.sizes();
            let layer = &self.work.image.layers[self.checked];
            self.totals.uncompressed += uncompressed;
            self.totals.stored += stored;
            self.totals.consumed += self.work.image.layer_bytes(layer);
            if let Err(error) = self.totals.check(&layer.name()) {
                self.fail(self.checked, error.into());
            }
            self.checked += 1;
        }
    }
}

impl Work<'_> {
    /// Finds or converts a layer.
    fn layer(&self, index: usize, budget: &Budget, messages: &Sender<Message>) -> Result<Made, ConvertError> {
        let layer = &self.image.layers[index];
        let send = |message| {
            // The receiver waits for all senders.
            let _ = messages.send(message);
        };
        match self.cache.claim(&layer.diff_id, || send(Message::Waiting))? {
            Claim::Found(files) => {
                send(Message::Bytes(self.image.layer_bytes(layer)));
                Ok(Made { files, is_new: false })
            }
            Claim::Held(workspace) => {
                let is_unwanted = |_| self.failed.load(Ordering::Relaxed) < index;
                let read = |bytes| send(Message::Bytes(bytes));
                convert_layer(self.image, index, &workspace, budget, &is_unwanted, &read)?;
                Ok(Made { files: self.cache.publish(workspace, &layer.diff_id)?, is_new: true })
            }
        }
    }
}

/// Converts the layer `index` of an image into an entry of the cache, and returns what it amounts to. `read` is called with the bytes of
/// its file that were read since the last call.
pub(super) fn convert_layer(
    image: &Image,
    index: usize,
    workspace: &Workspace,
    budget: &Budget,
    is_unwanted: &dyn Fn(Totals) -> bool,
    read: &dyn Fn(u64),
) -> Result<Totals, ConvertError> {
    let layer = &image.layers[index];
    let (data, entries) = (workspace.create(DATA)?, workspace.create(ENTRIES)?);
    let mut last = Totals::default();
    with_layer(image, layer, budget, is_unwanted, |stream| {
        let mut reported = Totals::default();
        let each = |stream: &mut &mut LayerStream<'_>| {
            let totals = stream.totals();
            if totals.uncompressed - reported.uncompressed >= REPORT_INTERVAL {
                read(totals.consumed - reported.consumed);
                reported = totals;
            }
        };
        let sizes = |stream: &mut &mut LayerStream<'_>| {
            last = stream.drain();
            LayerSizes { uncompressed: last.uncompressed, stored: last.stored }
        };
        let written = write_layer(stream, &data, &entries, budget, each, sizes);
        read(last.consumed.saturating_sub(reported.consumed));
        written.map_err(|source| {
            let (number, count, name) = (index + 1, image.layers.len(), layer.name());
            ConvertError::Content { number, count, name, source }
        })
    })?;
    Ok(last)
}
