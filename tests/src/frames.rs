// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Docker's stream frames, as a client of the control socket writes and reads them.

/// Size of a frame's header in bytes.
const HEADER: usize = 8;

/// `bytes` as one frame of `stream`.
#[must_use]
pub fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("tests send less than 4 GiB");
    [&[stream, 0, 0, 0], &length.to_be_bytes()[..], bytes].concat()
}

/// The texts in complete frames, by the number of their stream.
#[must_use]
pub fn texts(mut frames: &[u8]) -> [String; 4] {
    let mut texts: [Vec<u8>; 4] = Default::default();
    while let Some(header) = frames.first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let bytes = frames.get(HEADER..HEADER + length).expect("the last frame is complete");
        texts[usize::from(header[0])].extend_from_slice(bytes);
        frames = &frames[HEADER + length..];
    }
    assert!(frames.is_empty(), "an incomplete header: {frames:?}");
    texts.map(|text| String::from_utf8_lossy(&text).into_owned())
}
