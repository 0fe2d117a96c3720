//! Every key of the configuration file, as data: the parser, the flags of devices, their messages and the test of the
//! documentation all read these tables.

use super::devices::{DeviceSettings, Devices, MacAddress, cid, disk_id, tap};
use super::values::word;
use super::{ConsoleChoice, MemorySize, Settings, VmConfig};
use std::fmt;

/// The TOML types that a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer, not negative.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A string with a unit, or an integer in bytes.
    Size,
    /// A word, or an integer.
    WordOrInteger,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::Size => "a size (\"512M\", or bytes)",
            Self::WordOrInteger => "a string or a whole number",
        })
    }
}

/// A table that is a device. It may be empty: that it is there says something.
#[derive(Debug)]
pub struct DeviceTable {
    /// Its name.
    pub name: &'static str,
    /// Whether there can be several: `[[name]]`.
    pub is_list: bool,
    /// Begins a device, whose keys are then set.
    pub(super) begin: fn(&mut DeviceSettings),
    /// Whether two configurations have the same.
    same: fn(&Devices, &Devices) -> bool,
}

/// All of them, in their order among [`KEYS`].
pub const DEVICE_TABLES: &[DeviceTable] = &[
    DeviceTable {
        name: "disk",
        is_list: true,
        begin: |devices| devices.disks.push(Default::default()),
        same: |one, other| one.disks == other.disks,
    },
    DeviceTable {
        name: "net",
        is_list: true,
        begin: |devices| devices.nets.push(Default::default()),
        same: |one, other| one.nets == other.nets,
    },
    DeviceTable {
        name: "vsock",
        is_list: false,
        begin: |devices| devices.vsock = Some(Default::default()),
        same: |one, other| one.vsock == other.vsock,
    },
    DeviceTable {
        name: "rng",
        is_list: false,
        begin: |devices| devices.rng = Some(Default::default()),
        same: |one, other| one.rng == other.rng,
    },
    DeviceTable {
        name: "balloon",
        is_list: false,
        begin: |devices| devices.balloon = Some(Default::default()),
        same: |one, other| one.balloon == other.balloon,
    },
];

/// The device table of this name.
pub(super) fn device_table(name: &str) -> Option<&'static DeviceTable> {
    DEVICE_TABLES.iter().find(|table| table.name == name)
}

/// A table as the file has it: `[cpu]`, `[[disk]]`.
pub(super) fn heading(table: &str) -> String {
    match device_table(table) {
        Some(DeviceTable { is_list: true, .. }) => format!("[[{table}]]"),
        _ => format!("[{table}]"),
    }
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// The table that holds it, empty at the top level.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Checks the value, as text, and stores it; or says what is wrong with it.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    /// Whether two configurations have the same value. A device's keys leave that to its table.
    same: fn(&VmConfig, &VmConfig) -> bool,
}

impl Key {
    /// Whether two configurations have the same value.
    #[must_use]
    pub fn is_same(&self, one: &VmConfig, other: &VmConfig) -> bool {
        (self.same)(one, other)
    }

    /// Whether it can change while the VM runs.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.table == "vcore" && self.kind == Kind::Integer
    }
}

/// What differs between two configurations but cannot change while the VM runs: keys, and of devices the tables.
#[must_use]
pub fn fixed_differences(one: &VmConfig, other: &VmConfig) -> Vec<String> {
    let keys = KEYS.iter().filter(|key| !key.is_live() && !key.is_same(one, other));
    let tables = DEVICE_TABLES.iter().filter(|table| !(table.same)(&one.devices, &other.devices));
    keys.map(ToString::to_string).chain(tables.map(|table| heading(table.name))).collect()
}

impl fmt::Display for Key {
    /// As messages name it: `[cpu] count`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            "" => f.write_str(self.name),
            table => write!(f, "{} {}", heading(table), self.name),
        }
    }
}

/// A row: table, key, type, the field of [`Settings`] and how its text is read, the field of [`VmConfig`].
macro_rules! key {
    ($table:literal, $name:literal, $kind:ident, $($slot:ident).+ = $parse:expr, $($field:ident).+) => {
        Key {
            table: $table,
            name: $name,
            kind: Kind::$kind,
            set: |settings, text| store(&mut settings.$($slot).+, $parse(text)),
            same: |one, other| one.$($field).+ == other.$($field).+,
        }
    };
}

/// The row of a tunable of halt polling, whose key is its name.
macro_rules! tunable {
    ($name:ident) => {
        Key {
            table: "vcore",
            name: stringify!($name),
            kind: Kind::Integer,
            set: |settings, text| settings.tunables.say(stringify!($name), text),
            same: |one, other| one.tunables.values().$name == other.tunables.values().$name,
        }
    };
}

/// A row of a device: table, key, type, the device that was begun last, its field and how its text is read.
macro_rules! device {
    ($table:literal, $name:literal, $kind:ident, $list:ident.$last:ident() => $field:ident = $parse:expr) => {
        Key {
            table: $table,
            name: $name,
            kind: Kind::$kind,
            set: |settings, text| {
                let value = $parse(text)?;
                if let Some(device) = settings.devices.$list.$last() {
                    device.$field = value.into();
                }
                Ok(())
            },
            same: |_, _| true,
        }
    };
}

/// Stores a value that was parsed.
fn store<T, E>(slot: &mut Option<T>, value: Result<T, E>) -> Result<(), E> {
    *slot = Some(value?);
    Ok(())
}

/// A boolean, which has been told from other types already.
fn boolean(text: &str) -> Result<bool, String> {
    Ok(text == "true")
}

/// The second console's place. Standard input has the keys that end the VM, so it is the first one's.
pub(crate) fn second_console(text: &str) -> Result<ConsoleChoice, String> {
    match text.parse()? {
        ConsoleChoice::Stdio => Err("the second console cannot be stdio; it can be pty or file=PATH".into()),
        console => Ok(console),
    }
}

/// All keys, in the order in which messages list them.
pub const KEYS: &[Key] = &[
    key!("", "name", Text, name = super::vm_name, name),
    key!("boot", "kernel", Text, kernel = super::path, boot.kernel),
    key!("boot", "initrd", Text, initrd = super::path, boot.initrd),
    key!("boot", "cmdline", Text, cmdline = super::cmdline, boot.cmdline),
    key!("cpu", "count", Integer, cpus = str::parse, topology.vcpus),
    key!("cpu", "threads", Integer, threads = str::parse, topology.threads),
    key!("cpu", "model", Text, model = word, model),
    key!("memory", "size", Size, memory = str::parse, memory),
    key!("machine", "mmu", Text, mmu = word, mmu),
    key!("machine", "irqchip", Text, irqchip = word, irqchip),
    key!("machine", "reboot", Boolean, reboot = boolean, reboot),
    key!("cede", "plane", Text, plane = word, plane),
    key!("cede", "run_dir", Text, run_dir = super::path, run_dir),
    tunable!(halt_poll_ns),
    tunable!(halt_poll_ns_grow),
    tunable!(halt_poll_ns_grow_start),
    tunable!(halt_poll_ns_shrink),
    key!("vcore", "placement", Text, placement = str::parse, placement),
    key!("console", "backend", Text, console = str::parse, console),
    key!("console", "virtio", Text, devices.console = second_console, devices.console),
    key!("devices", "threads", WordOrInteger, devices.threads = str::parse, devices.threads),
    device!("disk", "path", Text, disks.last_mut() => path = super::path),
    device!("disk", "readonly", Boolean, disks.last_mut() => readonly = boolean),
    device!("disk", "direct", Boolean, disks.last_mut() => direct = boolean),
    device!("disk", "writethrough", Boolean, disks.last_mut() => writethrough = boolean),
    device!("disk", "id", Text, disks.last_mut() => id = disk_id),
    device!("disk", "iommu", Boolean, disks.last_mut() => iommu = boolean),
    device!("net", "tap", Text, nets.last_mut() => tap = tap),
    device!("net", "mac", Text, nets.last_mut() => mac = str::parse::<MacAddress>),
    device!("net", "iommu", Boolean, nets.last_mut() => iommu = boolean),
    device!("vsock", "cid", Integer, vsock.as_mut() => cid = cid),
    device!("vsock", "path", Text, vsock.as_mut() => path = super::path),
    device!("vsock", "iommu", Boolean, vsock.as_mut() => iommu = boolean),
    device!("rng", "iommu", Boolean, rng.as_mut() => iommu = boolean),
    device!("balloon", "size", Size, balloon.as_mut() => size = str::parse::<MemorySize>),
    device!("balloon", "deflate_on_oom", Boolean, balloon.as_mut() => deflate_on_oom = boolean),
    device!("balloon", "free_page_reporting", Boolean, balloon.as_mut() => free_page_reporting = boolean),
];

/// Reads a device as a flag has it: its keys apart by commas, as `path=disk.img,readonly`. A key alone is `true`.
pub(crate) fn device(table: &'static str, text: &str) -> Result<DeviceSettings, String> {
    let mut settings = Settings::default();
    if let Some(device) = device_table(table) {
        (device.begin)(&mut settings.devices);
    }
    let mut said = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        let key = KEYS.iter().find(|key| key.table == table && key.name == name).ok_or_else(|| {
            let keys = names(table).join(", ");
            format!("unknown key \"{name}\"; keys: {keys}; a value with a comma has to be in a file")
        })?;
        if said.contains(&name) {
            return Err(format!("{name} is there twice"));
        }
        said.push(name);
        let typed = match key.kind {
            Kind::Boolean => matches!(value, "true" | "false"),
            _ => part.contains('='),
        };
        if !typed {
            return Err(format!("{name} has to be {}; write {name}=…", key.kind));
        }
        (key.set)(&mut settings, value).map_err(|message| format!("{name}: {message}"))?;
    }
    Ok(settings.devices)
}

/// The names that `table` holds: its keys and, at the top level, the tables.
#[must_use]
pub fn names(table: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS.iter().filter(|key| key.table == table).map(|key| key.name).collect();
    if table.is_empty() {
        names.extend(KEYS.iter().map(|key| key.table).filter(|table| !table.is_empty()));
        names.dedup();
    }
    names
}
