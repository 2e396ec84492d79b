// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The query of a request as names and values. RFC 3986, 2.1 and 3.4. Pure.

/// The pairs of `query`; a name alone has no value. `None` if an escape is none.
pub(super) fn pairs(query: &str) -> Option<Vec<(String, Option<String>)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => Some((decode(name)?, Some(decode(value)?))),
            None => Some((decode(pair)?, None)),
        })
        .collect()
}

/// A plus stays one: it is part of times with an offset.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_stand_alone_and_escapes_are_taken_back() {
        let pairs = pairs("follow&since=2026-11-22T10%3a00:00%2B01:00&&tail=").unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(pairs, [("follow", None), ("since", Some("2026-11-22T10:00:00+01:00")), ("tail", Some(""))]);
        assert_eq!(super::pairs("").unwrap(), []);
    }

    #[test]
    fn an_escape_that_is_none_is_refused() {
        for query in ["a=%", "a=%2", "a=%zz", "%=1", "a=%ff"] {
            assert_eq!(pairs(query), None, "{query}");
        }
    }
}
