// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench network`: TCP, UDP and round trips between a guest and this machine by iperf3 and fio in the guest: over the same
//! tap device, over passt, and over the interface of a network namespace, with which a tap is compared that `tc mirred` connects with it.

use super::guest::{Guest, Network};
use super::tap::{Tap, TapDevice};
use super::{Monitor, compare, report, with_monitors};
use crate::bench::table::Table;
use crate::bench::unit::Unit;
use anyhow::{Context, Result, ensure};
use coracle_tests::{NetworkNamespace, TestDir};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitCode, Stdio};

/// Name, iperf3's options, whether packets are counted instead of bytes. Without `-R` the guest sends.
const LOADS: [(&str, &str, bool); 6] = [
    ("TCP, 1 stream, from the guest", "", false),
    ("TCP, 1 stream, to the guest", "-R", false),
    ("TCP, 4 streams, from the guest", "-P 4", false),
    ("TCP, 4 streams, to the guest", "-P 4 -R", false),
    ("UDP, 64 bytes, from the guest", "-u -l 64 -b 0", true),
    ("UDP, 64 bytes, to the guest", "-u -l 64 -b 0 -R", true),
];
/// iperf3's own.
const PORT: u16 = 5201;
const ECHO_PORT: u16 = 5202;
const SECONDS: u32 = 2;

pub(in crate::bench) fn run(rounds: usize) -> Result<ExitCode> {
    on_a_tap(rounds)?;
    on_passt(rounds)?;
    on_an_interface(rounds)
}

/// One column of a table.
struct Subject<'a> {
    monitor: &'a dyn Monitor,
    guest: Guest,
}

/// All monitors on the same tap device.
pub(in crate::bench) fn on_a_tap(rounds: usize) -> Result<ExitCode> {
    let device = TapDevice::create("bench0")?;
    let _server = Server::start(Command::new("iperf3"), Tap::HOST)?;
    echo(TcpListener::bind(SocketAddr::from((Tap::HOST, ECHO_PORT))).context("the echo server")?);
    compare(rounds, "bench-network.json", &mut |monitors, table| {
        let guest = || guest(Tap::HOST, Network::Tap(device.tap()), Vec::new());
        let subjects: Vec<_> = monitors.iter().map(|&monitor| Subject { monitor, guest: guest() }).collect();
        measure("tap", &subjects, rounds, table)
    })
}

/// Coracle and QEMU with passt.
pub(in crate::bench) fn on_passt(rounds: usize) -> Result<ExitCode> {
    let lan = Lan::create()?;
    compare_on(rounds, "bench-network-user.json", ["coracle, user", "QEMU microvm, passt"], &|monitors| {
        let subject = |monitor| Subject {
            monitor,
            guest: guest(NetworkNamespace::OUTSIDE, Network::User, lan.host.words().into()),
        };
        [subject(monitors[0]), subject(monitors[1])]
    })
}

/// Coracle on the interface of a namespace, and on a tap in front of it.
pub(in crate::bench) fn on_an_interface(rounds: usize) -> Result<ExitCode> {
    let (adopted, mirrored) = (Lan::create()?, Lan::create()?);
    let options = mirrored.mirror("tap0");
    compare_on(rounds, "bench-network-adopt.json", ["adopt", "tap and tc mirred"], &|monitors| {
        let network = Network::Mirrored { tap: "tap0", options: options.clone() };
        let guests = [
            guest(NetworkNamespace::OUTSIDE, Network::Adopted, adopted.host.words().into()),
            guest(NetworkNamespace::OUTSIDE, network, mirrored.host.words().into()),
        ];
        guests.map(|guest| Subject { monitor: monitors[0], guest })
    })
}

fn compare_on(
    rounds: usize,
    file: &str,
    names: [&'static str; 2],
    subjects: &dyn for<'a> Fn(&'a [&'a dyn Monitor]) -> [Subject<'a>; 2],
) -> Result<ExitCode> {
    with_monitors(&mut |monitors| {
        let mut table = Table::new(rounds, "network", names);
        measure(names[0], &subjects(monitors), rounds, &mut table)?;
        report(&table, file)
    })
}

fn guest(server: Ipv4Addr, network: Network, namespace: Vec<String>) -> Guest {
    let command = ["sh", "-c", &script(server)];
    Guest { memory_mib: 256, network, namespace, ..Guest::new("fio", &command) }
}

fn measure(what: &str, subjects: &[Subject], rounds: usize, table: &mut Table) -> Result<()> {
    for round in 0..rounds {
        eprintln!("network ({what}): round {}", round + 1);
        for step in 0..subjects.len() {
            let index = (step + round) % subjects.len();
            let Subject { monitor, guest } = &subjects[index];
            let outcome = monitor.start(guest)?.finish("{").with_context(|| monitor.name())?;
            let output = String::from_utf8_lossy(&outcome.stdout);
            for sample in read(&output).with_context(|| format!("{}: {output}", monitor.name()))? {
                table.add(&sample.name, sample.unit, index, sample.value);
            }
            table.add("CPU time of the process, all of it", Unit::Microseconds, index, outcome.cpu_us);
        }
    }
    Ok(())
}

/// A host and the server outside, each a network namespace, and a veth pair between them.
struct Lan {
    host: NetworkNamespace,
    _outside: NetworkNamespace,
    _server: Server,
}

impl Lan {
    fn create() -> Result<Lan> {
        let (host, outside) = NetworkNamespace::host_and_outside(&TestDir::new(), "");
        let server = Server::start(outside.command("iperf3"), NetworkNamespace::OUTSIDE)?;
        let listener = outside.enter(|| TcpListener::bind(SocketAddr::from((NetworkNamespace::OUTSIDE, ECHO_PORT))));
        echo(listener.context("the echo server")?);
        Ok(Lan { host, _outside: outside, _server: server })
    }

    /// Puts `tap` in front of the host's interface, whose addresses go to the guest. Returns coracle's options for it.
    fn mirror(&self, tap: &str) -> String {
        let link = self.host.ip("-json link show dev eth0");
        let link: Value = serde_json::from_str(&link).expect("ip prints JSON");
        let mac = link[0]["address"].as_str().expect("the interface has an address");
        self.host.ip("address flush dev eth0");
        self.host.ip(&format!("tuntap add {tap} mode tap vnet_hdr"));
        self.host.ip(&format!("link set {tap} up"));
        for (from, to) in [("eth0", tap), (tap, "eth0")] {
            self.host.tc(&format!("qdisc add dev {from} ingress"));
            self.host.tc(&format!("filter add dev {from} ingress matchall action mirred egress redirect dev {to}"));
        }
        format!("ip=10.7.0.2/24,gw=10.7.0.1,mac={mac}")
    }
}

/// iperf3's server. Dropping it ends it.
struct Server(Child);

impl Server {
    /// `command` is iperf3.
    fn start(mut command: Command, address: Ipv4Addr) -> Result<Server> {
        command.args(["--server", "--bind", &address.to_string(), "--forceflush"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("iperf3")?;
        let mut stdout = child.stdout.take().context("iperf3's output")?;
        let server = Server(child);
        // It listens when it has written its first line.
        ensure!(stdout.read(&mut [0])? == 1, "iperf3 wrote nothing");
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail without harm if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends back what comes, one connection after the other, until this process ends.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_nodelay(true);
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
        }
    });
}

/// One JSON document for each load, the last by fio: 64 bytes to the host and back, one after the other.
fn script(host: Ipv4Addr) -> String {
    let mut script = String::new();
    for (_, options, _) in LOADS {
        script += &format!("iperf3 -c {host} -p {PORT} -J -i 0 -t {SECONDS} {options}; ");
    }
    script
        + &format!(
            "fio --name=rr --ioengine=net --protocol=tcp --nodelay=1 --hostname={host} --port={ECHO_PORT} --rw=write --bs=64 \
             --size=64m --time_based --runtime={SECONDS} --pingpong=1 --output-format=json"
        )
}

struct Sample {
    name: String,
    unit: Unit,
    value: u64,
}

/// Reads the output of the script.
fn read(output: &str) -> Result<Vec<Sample>> {
    let mut documents = serde_json::Deserializer::from_str(output).into_iter::<Value>();
    let mut next = || documents.next().context("a document is missing")?.context("not JSON");
    let mut samples = Vec::new();
    for (name, _, packets) in LOADS {
        let document = next()?;
        if let Some(error) = document["error"].as_str() {
            anyhow::bail!("{name}: {error}");
        }
        let received = &document["end"]["sum_received"];
        let field = |field: &str| received[field].as_f64().with_context(|| format!("{name}: no {field}"));
        let (unit, value) = if packets {
            (Unit::PacketsPerSecond, (field("packets")? - field("lost_packets")?) / field("seconds")?)
        } else {
            (Unit::BytesPerSecond, field("bits_per_second")? / 8.0)
        };
        ensure!(value > 0.0, "{name}: nothing arrived");
        samples.push(Sample { name: name.to_owned(), unit, value: value as u64 });
    }
    let document = next()?;
    let job = &document["jobs"][0];
    ensure!(job["error"] == 0, "round trips: error {}", job["error"]);
    for (name, percentile) in [("p50", "50.000000"), ("p99", "99.000000")] {
        let time = job["write"]["clat_ns"]["percentile"][percentile].as_u64();
        let value = time.with_context(|| format!("round trips: no {name}"))? / 1000;
        samples.push(Sample { name: format!("TCP, round trip of 64 bytes, {name}"), unit: Unit::Microseconds, value });
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::{LOADS, read};

    const TRIPS: &str =
        r#"{"jobs":[{"error":0,"write":{"clat_ns":{"percentile":{"50.000000":20000,"99.000000":90000}}}}]}"#;

    fn load(packets: bool) -> &'static str {
        if packets {
            r#"{"end":{"sum_received":{"packets":300,"lost_packets":100,"seconds":2.0}}}"#
        } else {
            r#"{"end":{"sum_received":{"bits_per_second":8e6}}}"#
        }
    }

    #[test]
    fn rates_are_those_of_the_receiver() {
        let output = LOADS.map(|(_, _, packets)| load(packets)).join("\n") + TRIPS;
        let values: Vec<u64> = read(&output).unwrap().iter().map(|sample| sample.value).collect();
        assert_eq!(values, [1_000_000, 1_000_000, 1_000_000, 1_000_000, 100, 100, 20, 90]);
    }

    #[test]
    fn failed_load_is_an_error() {
        let name = |output: &str| format!("{:#}", read(output).err().unwrap());
        assert_eq!(
            name(r#"{"end":{},"error":"unable to connect"}"#),
            "TCP, 1 stream, from the guest: unable to connect"
        );
        assert_eq!(name(load(false)), "a document is missing");
        assert!(name("iperf3: not found").starts_with("not JSON"));
    }
}
