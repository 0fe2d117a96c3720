//! PAPR's numbers: hcalls and their return codes.
//!
//! Source: Power Architecture Platform Reference (PAPR), chapter 14; the XIVE calls are in the Linux kernel's
//! `Documentation/arch/powerpc` and `asm/hvcall.h`.

/// Return codes of hcalls (r3).
pub mod ret {
    pub const H_SUCCESS: i64 = 0;
    pub const H_BUSY: i64 = 1;
    /// H_JOIN: the caller is the last that has not joined.
    pub const H_CONTINUE: i64 = 18;
    pub const H_HARDWARE: i64 = -1;
    pub const H_FUNCTION: i64 = -2;
    pub const H_PARAMETER: i64 = -4;
    pub const H_BAD_MODE: i64 = -5;
    pub const H_P2: i64 = -55;
    pub const H_P3: i64 = -56;
    pub const H_P4: i64 = -57;
    pub const H_P5: i64 = -58;
    /// The first of H_UNSUPPORTED_FLAG: bit `n` of the flags (IBM numbering) is unsupported as this minus `n`.
    pub const H_UNSUPPORTED_FLAG_START: i64 = -256;
}

/// Numbers of hcalls (r3 on entry).
pub mod nr {
    pub const H_GET_TCE: u64 = 0x1c;
    pub const H_PUT_TCE: u64 = 0x20;
    pub const H_GET_TERM_CHAR: u64 = 0x54;
    pub const H_PUT_TERM_CHAR: u64 = 0x58;
    pub const H_EOI: u64 = 0x64;
    pub const H_CPPR: u64 = 0x68;
    pub const H_IPI: u64 = 0x6c;
    pub const H_IPOLL: u64 = 0x70;
    pub const H_XIRR: u64 = 0x74;
    pub const H_CEDE: u64 = 0xe0;
    pub const H_CONFER: u64 = 0xe4;
    pub const H_PROD: u64 = 0xe8;
    pub const H_STUFF_TCE: u64 = 0x138;
    pub const H_PUT_TCE_INDIRECT: u64 = 0x13c;
    pub const H_GET_CPU_CHARACTERISTICS: u64 = 0x1c8;
    pub const H_JOIN: u64 = 0x298;
    pub const H_XIRR_X: u64 = 0x2fc;
    pub const H_RANDOM: u64 = 0x300;
    pub const H_SET_MODE: u64 = 0x31c;
    pub const H_REGISTER_PROC_TBL: u64 = 0x37c;
    pub const H_INT_GET_SOURCE_INFO: u64 = 0x3a8;
    pub const H_INT_SET_SOURCE_CONFIG: u64 = 0x3ac;
    pub const H_INT_GET_SOURCE_CONFIG: u64 = 0x3b0;
    pub const H_INT_GET_QUEUE_INFO: u64 = 0x3b4;
    pub const H_INT_SET_QUEUE_CONFIG: u64 = 0x3b8;
    pub const H_INT_GET_QUEUE_CONFIG: u64 = 0x3bc;
    pub const H_INT_ESB: u64 = 0x3c8;
    pub const H_INT_SYNC: u64 = 0x3cc;
    pub const H_INT_RESET: u64 = 0x3d0;
    /// The last number of PAPR's own range.
    pub const MAX: u64 = 0x4ff;
    /// Not PAPR: what the RTAS blob in guest memory calls us with (KVMPPC_H_RTAS).
    pub const H_RTAS: u64 = 0xf000;
    /// The first number of the platform's range, in which each hypervisor has its own.
    pub const PLATFORM: u64 = 0xf000;
    /// The last number of the platform's range.
    pub const PLATFORM_MAX: u64 = 0xf0ff;
}
