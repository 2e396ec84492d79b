// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers that are converted before their image is complete: each as soon as its file is here, on the thread that brought it. The
//! conversion of the whole image finds them in the cache. It also reports what is wrong with a layer: a failure here is no more than
//! work that is still to be done.

use super::ConvertError;
use super::layers::convert_layer;
use crate::budget::Budget;
use crate::cache::{Claim, LayerCache, RootDiskCache};
use crate::digest::Digest;
use crate::image::{Image, Reference};
use crate::layer::{LayerError, Totals};
use crate::prepare::Error;
use crate::root_disk::RootFormat;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Converts the layers of one image. Shared by the threads that bring them.
pub struct LayersAhead {
    image: Image,
    cache: LayerCache,
    budget: Budget,
    at_once: usize,
    sizes: Mutex<Sizes>,
}

/// Of the layers that are converted here.
#[derive(Default)]
struct Sizes {
    /// By the layer's number.
    of_layer: Vec<Totals>,
    sum: Totals,
    /// The layers unpack to more than is accepted.
    is_over: bool,
    /// Bytes of the layers' files that were read, or need not be read.
    read: u64,
}

impl LayersAhead {
    /// Reads the documents of the image with this manifest in the OCI layout `store`; its layers may be missing. `None` if the cache
    /// has the root disk. At most `at_once` threads may call [`Self::convert`] at the same time: each has its share of the memory.
    ///
    /// # Errors
    /// The documents are no image's, or the cache cannot be read.
    pub fn open(store: &Path, manifest: &Reference, cache: &Path, at_once: usize) -> Result<Option<Self>, Error> {
        let budget = Budget::default();
        let image = Image::of_manifest(store, manifest, &budget)
            .map_err(|source| Error::Image { reference: manifest.digest.to_string(), source })?;
        let chain_id = image.chain_id();
        for format in [RootFormat::Erofs, RootFormat::Squashfs] {
            if RootDiskCache::new(cache, format).find(&chain_id)?.is_some() {
                return Ok(None);
            }
        }
        let sizes = Sizes { of_layer: vec![Totals::default(); image.layers.len()], ..Sizes::default() };
        Ok(Some(Self { image, cache: LayerCache::new(cache), budget, at_once, sizes: Mutex::new(sizes) }))
    }

    /// Converts the layer whose file is `blob`, which is complete, unless the cache has it. Waits for a process that converts it already.
    /// `is_unwanted` ends the conversion; `read` is called with the bytes that were read of all layers. Together the layers that are
    /// converted here take no more than those of an image may.
    ///
    /// # Errors
    /// The layer is not converted, and nothing of it is left.
    pub fn convert(
        &self,
        blob: &Digest,
        is_unwanted: &dyn Fn() -> bool,
        read: &dyn Fn(u64),
    ) -> Result<(), ConvertError> {
        let Some(index) = self.image.layers.iter().position(|layer| layer.digest() == Some(blob)) else {
            return Ok(());
        };
        let layer = &self.image.layers[index];
        if self.sizes().is_over {
            return Err(LayerError::Ratio { name: layer.name() }.into());
        }
        match self.cache.claim(&layer.diff_id, || {})? {
            Claim::Found(_) => {
                let mut sizes = self.sizes();
                sizes.read += self.image.layer_bytes(layer);
                read(sizes.read);
                Ok(())
            }
            Claim::Held(workspace) => {
                let budget = self.budget.share(self.at_once);
                let is_unwanted = |totals| is_unwanted() || self.count(index, totals, read).is_err();
                let converted = convert_layer(&self.image, index, &workspace, &budget, &is_unwanted, &|_| {});
                // A bound that all layers have in common explains the error of the one that reached it.
                let checked =
                    converted.as_ref().map_or_else(|_| self.check(index), |totals| self.count(index, *totals, read));
                let result = checked.map_err(ConvertError::from).and(converted).and_then(|_| Ok(workspace.publish()?));
                if result.is_err() {
                    self.set(index, Totals::default());
                }
                result
            }
        }
    }

    /// Sets and reports what is read of a layer, and checks the sum.
    fn count(&self, index: usize, totals: Totals, read: &dyn Fn(u64)) -> Result<(), LayerError> {
        read(self.set(index, totals));
        self.check(index)
    }

    /// Returns the bytes that were read of all layers.
    fn set(&self, index: usize, totals: Totals) -> u64 {
        let mut sizes = self.sizes();
        let before = std::mem::replace(&mut sizes.of_layer[index], totals);
        sizes.sum.uncompressed = sizes.sum.uncompressed + totals.uncompressed - before.uncompressed;
        sizes.sum.stored = sizes.sum.stored + totals.stored - before.stored;
        sizes.sum.consumed = sizes.sum.consumed + totals.consumed - before.consumed;
        sizes.read += totals.consumed.saturating_sub(before.consumed);
        sizes.read
    }

    /// Checks the sum; the layer is the one that an error names.
    fn check(&self, index: usize) -> Result<(), LayerError> {
        let mut sizes = self.sizes();
        let checked = sizes.sum.check(&self.image.layers[index].name());
        sizes.is_over |= checked.is_err();
        checked
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
