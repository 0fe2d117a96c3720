//! Virtio networks: two guests on one bridge talk to each other; an interface and its driver come and go.

use anyhow::{Context, Result, ensure};
use xtask::lab::Host;

use super::disk::{ensure_whole, on_root};
use super::{Body, DEBIAN, Scenario};
use crate::host::{LabHost, quoted};

pub(super) fn table() -> Vec<Scenario> {
    let mut table = Vec::new();
    for host in [Host::Powernv9, Host::Powernv8, Host::Powernv10] {
        let elsewhere = host != Host::Powernv9;
        let net = |title, body, seconds| Scenario::at(host, title, Body::Steps(body)).within(seconds);
        table.extend([
            net("net_pair", |host| pair(host, "kernel"), 900).ignored_if(elsewhere),
            net("vmm_plane_net_pair", |host| pair(host, "vmm"), 900).ignored_if(elsewhere),
            net("net_rebind", |host| rebind(host, "kernel"), 600).ignored_if(host == Host::Powernv8),
            net("vmm_plane_net_rebind", |host| rebind(host, "vmm"), 600).ignored_if(elsewhere),
        ]);
    }
    table
}

/// The bridge of the host, and the host on it.
const BRIDGE: &str = "lab-bridge br0 tap0 tap1 && { ip addr show br0 | grep -q 'inet 10' || ip addr add 10.9.0.1/24 dev br0; }";
const HOST: &str = "10.9.0.1";
const CLIENT: &str = "10.9.0.2";
const SERVER: &str = "10.9.0.3";

/// MiB of the file that one sends to the other.
const SENT: u32 = 32;

/// Two whole systems on one bridge, the card of one run by cede, of the other by the kernel: pings, streams, and a file that arrives as
/// it was sent.
fn pair(host: &mut LabHost, plane: &str) -> Result<()> {
    host.ok(BRIDGE)?;
    let net = |n: u32| format!("--name pair{n} --net tap=tap{n},mac=52:54:00:00:00:0{}", n + 1);
    let with_vhost = format!("{},vhost=on", net(1));
    host.start_peer(&on_root(plane, "b", &with_vhost, &format!("sh /tests/net-server.sh {SERVER}")))?;
    host.expect_peer("net: serving")?;
    host.ok("grep -qs vhost- /proc/[0-9]*/task/*/comm")?;
    let client = format!("sh /tests/net-client.sh {CLIENT} {SERVER} {SENT}");
    let client = host.run(&on_root(plane, "a", &net(0), &client))?;
    // The server waits for the client's file; without one it would wait for ever.
    ensure!(client.text.contains("\nnet: done\n"), "the client did not come to its end");
    let server = host.wait_peer()?;
    for (name, ended) in [("client", &client), ("server", &server)] {
        ensure!(ended.code == 0, "the {name}'s cede ended with {}", ended.code);
        ensure_whole(&ended.text).with_context(|| name.to_owned())?;
    }
    for what in ["pings came back", "fragments came back", "iperf3 sent", "iperf3 received"] {
        ensure!(client.text.contains(&format!("\nnet: {what}\n")), "not {what:?}");
    }
    let sent = line(&client.text, "net: sent ").context("nothing was sent")?;
    let received = line(&server.text, "net: received ").context("nothing was received")?;
    ensure!(sent == received, "what was received is not what was sent: {received}, {sent}");
    host.ok("e2fsck -fn /dev/lab/a && e2fsck -fn /dev/lab/b")?;
    Ok(())
}

/// What follows `start` on its line.
fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(start))
}

/// A small guest with two cards, one run by cede, the other by the kernel; the host is the peer of each.
fn rebind(host: &mut LabHost, plane: &str) -> Result<()> {
    host.ok(BRIDGE)?;
    let cmdline = format!("console=hvc0 quiet lab.run=sh /tests/net-rebind.sh {CLIENT} {HOST} 20");
    let ended = host.run(&format!(
        "--plane {plane} --kernel {DEBIAN} --initrd /tmp/initrd --cpus 2 --memory 256M --net tap=tap0 --net tap=tap1,vhost=on \
         --cmdline {}",
        quoted(&cmdline)
    ))?;
    ensure!(ended.code == 0, "cede ended with {}", ended.code);
    ensure!(!ended.text.contains("rebind: FAIL"), "the guest says that it failed");
    for card in ["eth0", "eth1"] {
        for what in ["down and up", "unbound and bound"] {
            let text = format!("rebind: {card} answered after 20 times {what}\n");
            ensure!(ended.text.contains(&text), "the guest did not print {text:?}");
        }
    }
    Ok(())
}
