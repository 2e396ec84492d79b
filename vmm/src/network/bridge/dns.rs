// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Queries of names and their answers, as far as a name server of the machines on a bridge reads and writes them: the header and
//! one question. RFC 1035, 4.1. What else a query has, such as EDNS options, is for the server that it is forwarded to. Pure.

use std::net::IpAddr;

const HEADER_SIZE: usize = 12;
const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;
/// Of one name, so that the answer fits 512 bytes, which every client reads.
pub(super) const MAX_UDP_ANSWERS: usize = 8;
/// More than a bridge has machines.
pub(super) const MAX_TCP_ANSWERS: usize = 512;

/// Bits of the header's third and fourth byte.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const RCODE_SERVFAIL: u8 = 2;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// A pointer to the name in the question.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER_SIZE as u8];
/// A machine of this name may have another address at once.
const TTL: [u8; 4] = [0; 4];

/// A query of a name, as a client sends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    /// In lower case, without the dot at its end.
    pub(super) name: String,
    kind: u16,
    class: u16,
    /// The packet up to the end of its question.
    head: &'a [u8],
}

impl<'a> Query<'a> {
    /// Returns `None` for what is not a query with one question.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER_SIZE] = packet.first_chunk()?;
        if header[2] & (QR | OPCODE) != 0 || header[4..6] != [0, 1] {
            return None;
        }
        let (mut labels, mut at) = (Vec::new(), HEADER_SIZE);
        loop {
            // Longer than a label is a pointer, which a question has no use for.
            match *packet.get(at)? {
                0 => break,
                length @ 1..=MAX_LABEL => {
                    let end = at + 1 + usize::from(length);
                    labels.push(String::from_utf8_lossy(packet.get(at + 1..end)?).to_ascii_lowercase());
                    at = end;
                }
                _ => return None,
            }
            if at - HEADER_SIZE >= MAX_NAME {
                return None;
            }
        }
        let fields: &[u8; 4] = packet.get(at + 1..)?.first_chunk()?;
        let [kind, class] = [[fields[0], fields[1]], [fields[2], fields[3]]].map(u16::from_be_bytes);
        Some(Self { name: labels.join("."), kind, class, head: &packet[..at + 5] })
    }

    pub(super) fn is_of_the_internet(&self) -> bool {
        self.class == CLASS_IN
    }

    /// The answer for a name with these addresses. Without one of the wanted type it says that the name exists; with more than
    /// `max` that it is truncated, so that the client asks by TCP.
    pub(super) fn answer(&self, addresses: &[IpAddr], max: usize) -> Vec<u8> {
        let wanted = |address: &&IpAddr| match address {
            IpAddr::V4(_) => self.kind == TYPE_A,
            IpAddr::V6(_) => self.kind == TYPE_AAAA,
        };
        let mut wanted: Vec<_> = addresses.iter().filter(wanted).collect();
        let truncated = if wanted.len() > max { TC } else { 0 };
        wanted.truncate(max);
        let mut packet = self.reply(AA | truncated, 0);
        packet[6..8].copy_from_slice(&(wanted.len() as u16).to_be_bytes());
        for address in wanted {
            packet.extend(NAME_OF_QUESTION);
            packet.extend([self.kind.to_be_bytes(), CLASS_IN.to_be_bytes()].as_flattened());
            packet.extend(TTL);
            let data = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            packet.extend((data.len() as u16).to_be_bytes());
            packet.extend(data);
        }
        packet
    }

    /// The answer when no server answers.
    pub(super) fn failure(&self) -> Vec<u8> {
        self.reply(0, RCODE_SERVFAIL)
    }

    fn reply(&self, flags: u8, code: u8) -> Vec<u8> {
        let mut packet = self.head.to_vec();
        packet[2] = QR | flags | self.head[2] & RD;
        packet[3] = RA | code;
        // One question and nothing else.
        packet[6..HEADER_SIZE].fill(0);
        packet
    }
}

/// Whether `packet` is a server's answer to `query`.
pub(super) fn is_answer(packet: &[u8], query: &[u8]) -> bool {
    packet.len() >= HEADER_SIZE && query.len() >= 2 && packet[..2] == query[..2] && packet[2] & QR != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number 0x1234, recursion desired, one question and one additional record, whose bytes are `after`.
    fn query(labels: &[&str], kind: u16, after: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, RD, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in labels {
            packet.push(label.len() as u8);
            packet.extend(label.bytes());
        }
        packet.push(0);
        packet.extend(kind.to_be_bytes());
        packet.extend(CLASS_IN.to_be_bytes());
        packet.extend(after);
        packet
    }

    #[test]
    fn query_is_read_and_answered_by_type() {
        let addresses = ["10.89.0.2", "fd89:c0a::2", "10.89.0.3"].map(|text| text.parse().unwrap());
        let packet = query(&["DB", "lan"], TYPE_A, &[0; 11]);
        let parsed = Query::parse(&packet).unwrap();
        assert_eq!((&*parsed.name, parsed.is_of_the_internet()), ("db.lan", true));
        let answer = parsed.answer(&addresses, MAX_UDP_ANSWERS);
        assert_eq!(answer[..HEADER_SIZE], [0x12, 0x34, QR | AA | RD, RA, 0, 1, 0, 2, 0, 0, 0, 0]);
        let question_end = packet.len() - 11;
        assert_eq!(answer[HEADER_SIZE..question_end], packet[HEADER_SIZE..question_end]);
        let record = |last| [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 89, 0, last];
        assert_eq!(answer[question_end..], [record(2), record(3)].concat());
        assert!(is_answer(&answer, &packet) && !is_answer(&packet, &packet) && !is_answer(&answer[..11], &packet));

        let packet = query(&["db"], TYPE_AAAA, &[]);
        let answer = Query::parse(&packet).unwrap().answer(&addresses, MAX_UDP_ANSWERS);
        assert_eq!((answer[7], &answer[answer.len() - 18..answer.len() - 15]), (1, &[0, 16, 0xfd][..]));
        let packet = query(&["db"], 15, &[]);
        let answer = Query::parse(&packet).unwrap().answer(&addresses, MAX_UDP_ANSWERS);
        assert_eq!((answer[3], answer[7], answer.len()), (RA, 0, packet.len()), "the name has no other records");
        let failure = Query::parse(&packet).unwrap().failure();
        assert_eq!((failure[2], failure[3]), (QR | RD, RA | RCODE_SERVFAIL));
    }

    #[test]
    fn answers_fit_512_bytes() {
        let label = "a".repeat(63);
        let packet = query(&[&label, &label, &label, &label[..61]], TYPE_AAAA, &[]);
        let addresses = vec!["fd00::1".parse().unwrap(); 253];
        let answer = Query::parse(&packet).unwrap().answer(&addresses, MAX_UDP_ANSWERS);
        assert!(answer.len() <= 512 && answer[7] == 8, "{}", answer.len());
        assert_eq!(answer[2], QR | AA | TC | RD, "it is not complete");
        let by_tcp = Query::parse(&packet).unwrap().answer(&addresses, MAX_TCP_ANSWERS);
        assert_eq!((by_tcp[2], &by_tcp[6..8]), (QR | AA | RD, &[0, 253][..]));
    }

    #[test]
    fn what_is_not_a_query_is_rejected() {
        let good = query(&["db"], TYPE_A, &[]);
        let with = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            packet
        };
        for (packet, why) in [
            (Vec::new(), "empty"),
            (good[..11].to_vec(), "half a header"),
            (good[..good.len() - 1].to_vec(), "half a question"),
            (with(2, QR), "an answer"),
            (with(2, 0x28), "an update"),
            (with(5, 0), "no question"),
            (with(5, 2), "two questions"),
            (with(HEADER_SIZE, 0xc0), "a pointer"),
            (with(HEADER_SIZE, 0x40), "a label of another kind"),
            (with(HEADER_SIZE, 63), "a label that is longer than the packet"),
            (query(&["a".repeat(63).as_str(); 4], TYPE_A, &[]), "a name that is too long"),
        ] {
            assert_eq!(Query::parse(&packet), None, "{why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_parsed_without_panic(packet: Vec<u8>) {
            if let Some(query) = Query::parse(&packet) {
                proptest::prop_assert!(query.answer(&["10.0.0.1".parse().unwrap()], MAX_UDP_ANSWERS).len() <= 512);
            }
        }
    }
}
