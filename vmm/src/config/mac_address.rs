// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses of network devices (`--mac-address`, `mac=`).

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a unicast MAC address like 02:00:00:00:00:01")]
pub(crate) struct MacError(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MacAddress([u8; 6]);

impl MacAddress {
    #[must_use]
    pub(crate) const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// In the order of the wire.
    #[must_use]
    pub(crate) fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut octets = [0; 6];
        rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())?;
        octets[0] = octets[0] & 0xfc | 0x02;
        Ok(Self(octets))
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refused = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            *octet = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(refused)?;
        }
        // Neither a group address nor all zeroes.
        if parts.next().is_some() || octets[0] & 1 != 0 || octets == [0; 6] {
            return Err(refused());
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

text_form!(MacAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_address_is_unicast() {
        assert_eq!("02:00:00:aB:00:01".parse::<MacAddress>().unwrap().octets(), [2, 0, 0, 0xab, 0, 1]);
        for text in ["00:11:22", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:01:02", "+2:00:00:00:00:01"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(MacError(text.into())), "{text}");
        }
        let random = MacAddress::random().unwrap();
        assert_eq!(random.octets()[0] & 3, 2, "locally administered, unicast");
    }
}
