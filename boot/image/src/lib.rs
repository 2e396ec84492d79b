// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An image reference in, a root disk and the image's configuration out.
#![forbid(unsafe_code)]
