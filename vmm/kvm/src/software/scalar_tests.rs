// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each arithmetic completion against the instruction itself: the same bytes are executed by the
//! CPU that runs the test and completed in a guest, with the same operands; results and defined
//! flags are compared. Instructions that this CPU does not have are skipped.
#![allow(unsafe_code)] // Executes instructions with operands in registers.

use super::registers::{FLAG_CARRY, FLAG_OVERFLOW, FLAG_SIGN, FLAG_ZERO, FLAGS_ARITHMETIC};
use super::test_guest::{BASE, DATA, Guest};
use proptest::prelude::*;
use std::sync::LazyLock;

const CARRY_ZERO: u64 = FLAG_CARRY | FLAG_ZERO;
const SIGN_TOO: u64 = CARRY_ZERO | FLAG_OVERFLOW | FLAG_SIGN;

/// RAX, RCX, RDX, RFLAGS; then the eight bytes that RBX points at.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operands {
    rax: u64,
    rcx: u64,
    rdx: u64,
    flags: u64,
    memory: u64,
}

struct Instruction {
    text: &'static str,
    run: unsafe extern "C" fn(*mut Operands),
    start: *const u8,
    end: *const u8,
    /// The flags that the manual defines.
    defined: u64,
}

// SAFETY: the pointers are to code, which nothing writes.
unsafe impl Send for Instruction {}
// SAFETY: as for `Send`.
unsafe impl Sync for Instruction {}

impl Instruction {
    fn bytes(&self) -> &'static [u8] {
        // SAFETY: both point into the code of one function of this program, which lives as long as
        // it does.
        unsafe { std::slice::from_raw_parts(self.start, self.end.offset_from_unsigned(self.start)) }
    }

    /// The CPU's result.
    fn executed(&self, mut operands: Operands) -> Operands {
        // SAFETY: the function touches the operands and the registers that the calling convention
        // gives it.
        unsafe { (self.run)(&raw mut operands) };
        operands
    }

    fn completed(&self, operands: Operands) -> Operands {
        let mut guest = Guest::with_code(self.bytes());
        let registers = &mut guest.vcpu.registers;
        (registers.rax, registers.rcx, registers.rdx) = (operands.rax, operands.rcx, operands.rdx);
        registers.rflags = operands.flags;
        guest.poke(DATA, operands.memory);
        guest.succeed();
        let registers = guest.vcpu.registers;
        assert_eq!(registers.rbx, BASE + DATA);
        Operands {
            rax: registers.rax,
            rcx: registers.rcx,
            rdx: registers.rdx,
            flags: registers.rflags,
            memory: guest.peek(DATA),
        }
    }
}

macro_rules! instructions {
    ($($name:ident: $feature:tt, $text:literal, $defined:expr;)*) => {
        $(
            std::arch::global_asm!(
                concat!(".globl coracle_test_", stringify!($name)),
                concat!(".globl coracle_test_", stringify!($name), "_start"),
                concat!(".globl coracle_test_", stringify!($name), "_end"),
                concat!("coracle_test_", stringify!($name), ":"),
                "push rbx",
                "mov r8, rdi",
                "mov rax, [r8]",
                "mov rcx, [r8 + 8]",
                "mov rdx, [r8 + 16]",
                "lea rbx, [r8 + 32]",
                "push [r8 + 24]",
                "popfq",
                concat!("coracle_test_", stringify!($name), "_start:"),
                $text,
                concat!("coracle_test_", stringify!($name), "_end:"),
                "pushfq",
                "pop [r8 + 24]",
                "mov [r8], rax",
                "mov [r8 + 8], rcx",
                "mov [r8 + 16], rdx",
                "pop rbx",
                "ret",
            );
        )*
        /// The instructions that this CPU has.
        fn instructions() -> Vec<Instruction> {
            let all = [$({
                unsafe extern "C" {
                    #[link_name = concat!("coracle_test_", stringify!($name))]
                    fn run(operands: *mut Operands);
                    #[link_name = concat!("coracle_test_", stringify!($name), "_start")]
                    static START: u8;
                    #[link_name = concat!("coracle_test_", stringify!($name), "_end")]
                    static END: u8;
                }
                let instruction = Instruction {
                    text: $text,
                    run,
                    start: &raw const START,
                    end: &raw const END,
                    defined: $defined,
                };
                (is_x86_feature_detected!($feature), instruction)
            },)*];
            for (_, missing) in all.iter().filter(|(present, _)| !present) {
                eprintln!("skipped: this CPU has no `{}`", missing.text);
            }
            all.into_iter().filter_map(|(present, instruction)| present.then_some(instruction)).collect()
        }
    };
}

instructions! {
    popcnt_64: "popcnt", "popcnt rax, rcx", FLAGS_ARITHMETIC;
    popcnt_32: "popcnt", "popcnt eax, ecx", FLAGS_ARITHMETIC;
    popcnt_16: "popcnt", "popcnt ax, cx", FLAGS_ARITHMETIC;
    popcnt_memory: "popcnt", "popcnt rax, [rbx]", FLAGS_ARITHMETIC;
    tzcnt_64: "bmi1", "tzcnt rax, rcx", CARRY_ZERO;
    tzcnt_32: "bmi1", "tzcnt eax, ecx", CARRY_ZERO;
    tzcnt_16: "bmi1", "tzcnt ax, cx", CARRY_ZERO;
    lzcnt_64: "lzcnt", "lzcnt rax, rcx", CARRY_ZERO;
    lzcnt_32: "lzcnt", "lzcnt eax, ecx", CARRY_ZERO;
    lzcnt_16: "lzcnt", "lzcnt ax, [rbx]", CARRY_ZERO;
    andn_64: "bmi1", "andn rax, rcx, rdx", SIGN_TOO;
    andn_32: "bmi1", "andn eax, ecx, [rbx]", SIGN_TOO;
    bextr_64: "bmi1", "bextr rax, rcx, rdx", CARRY_ZERO | FLAG_OVERFLOW;
    bextr_32: "bmi1", "bextr eax, ecx, edx", CARRY_ZERO | FLAG_OVERFLOW;
    blsi_64: "bmi1", "blsi rax, rcx", SIGN_TOO;
    blsi_32: "bmi1", "blsi eax, ecx", SIGN_TOO;
    blsmsk_64: "bmi1", "blsmsk rax, rcx", SIGN_TOO;
    blsmsk_32: "bmi1", "blsmsk eax, ecx", SIGN_TOO;
    blsr_64: "bmi1", "blsr rax, rcx", SIGN_TOO;
    blsr_32: "bmi1", "blsr eax, ecx", SIGN_TOO;
    bzhi_64: "bmi2", "bzhi rax, rcx, rdx", SIGN_TOO;
    bzhi_32: "bmi2", "bzhi eax, ecx, edx", SIGN_TOO;
    mulx_64: "bmi2", "mulx rax, rcx, [rbx]", FLAGS_ARITHMETIC;
    mulx_32: "bmi2", "mulx eax, ecx, edx", FLAGS_ARITHMETIC;
    mulx_same: "bmi2", "mulx rax, rax, rcx", FLAGS_ARITHMETIC;
    pdep_64: "bmi2", "pdep rax, rcx, rdx", FLAGS_ARITHMETIC;
    pdep_32: "bmi2", "pdep eax, ecx, edx", FLAGS_ARITHMETIC;
    pext_64: "bmi2", "pext rax, rcx, rdx", FLAGS_ARITHMETIC;
    pext_32: "bmi2", "pext eax, ecx, [rbx]", FLAGS_ARITHMETIC;
    rorx_64: "bmi2", "rorx rax, rcx, 43", FLAGS_ARITHMETIC;
    rorx_32: "bmi2", "rorx eax, ecx, 43", FLAGS_ARITHMETIC;
    sarx_64: "bmi2", "sarx rax, rcx, rdx", FLAGS_ARITHMETIC;
    sarx_32: "bmi2", "sarx eax, ecx, edx", FLAGS_ARITHMETIC;
    shlx_64: "bmi2", "shlx rax, [rbx], rdx", FLAGS_ARITHMETIC;
    shlx_32: "bmi2", "shlx eax, ecx, edx", FLAGS_ARITHMETIC;
    shrx_64: "bmi2", "shrx rax, rcx, rdx", FLAGS_ARITHMETIC;
    shrx_32: "bmi2", "shrx eax, ecx, edx", FLAGS_ARITHMETIC;
    adcx_64: "adx", "adcx rax, rcx", FLAGS_ARITHMETIC;
    adcx_32: "adx", "adcx eax, ecx", FLAGS_ARITHMETIC;
    adox_64: "adx", "adox rax, [rbx]", FLAGS_ARITHMETIC;
    adox_32: "adx", "adox eax, ecx", FLAGS_ARITHMETIC;
    crc32_64: "sse4.2", "crc32 rax, rcx", FLAGS_ARITHMETIC;
    crc32_32: "sse4.2", "crc32 eax, dword ptr [rbx]", FLAGS_ARITHMETIC;
    crc32_16: "sse4.2", "crc32 eax, cx", FLAGS_ARITHMETIC;
    crc32_8: "sse4.2", "crc32 eax, ch", FLAGS_ARITHMETIC;
    movbe_load_64: "movbe", "movbe rax, [rbx]", FLAGS_ARITHMETIC;
    movbe_load_16: "movbe", "movbe ax, [rbx]", FLAGS_ARITHMETIC;
    movbe_store_32: "movbe", "movbe [rbx], ecx", FLAGS_ARITHMETIC;
    movnti_64: "sse2", "movnti [rbx], rcx", FLAGS_ARITHMETIC;
    movnti_32: "sse2", "movnti [rbx], ecx", FLAGS_ARITHMETIC;
}

/// Boundary values, and any.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        (0..64_u32).prop_map(|bit| 1 << bit),
        0..300_u64,
        any::<u32>().prop_map(u64::from),
        any::<u64>(),
    ]
}

fn operands() -> impl Strategy<Value = Operands> {
    (value(), value(), value(), value(), any::<u64>()).prop_map(|(rax, rcx, rdx, memory, flags)| Operands {
        rax,
        rcx,
        rdx,
        flags: 0x202 | flags & FLAGS_ARITHMETIC,
        memory,
    })
}

static INSTRUCTIONS: LazyLock<Vec<Instruction>> = LazyLock::new(instructions);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn completed_and_executed_arithmetic_have_equal_results(operands in operands()) {
        for instruction in INSTRUCTIONS.iter() {
            let (mut expected, mut found) = (instruction.executed(operands), instruction.completed(operands));
            expected.flags &= instruction.defined;
            found.flags &= instruction.defined;
            prop_assert_eq!(expected, found, "{}", instruction.text);
        }
    }
}

#[test]
fn random_number_sets_the_carry_flag() {
    // rdrand rax
    let mut guest = Guest::with_code(&[0x48, 0x0f, 0xc7, 0xf0]);
    guest.vcpu.registers.rflags = 2 | FLAGS_ARITHMETIC & !FLAG_CARRY;
    guest.succeed();
    assert_ne!(guest.vcpu.registers.rax, 0);
    assert_eq!(guest.vcpu.registers.rflags, 2 | FLAG_CARRY);
}

#[test]
fn operand_across_two_pages_is_read() {
    // popcnt rax, [rbx]
    let mut guest = Guest::with_code(&[0xf3, 0x48, 0x0f, 0xb8, 0x03]);
    guest.vcpu.registers.rbx = BASE + DATA + 0xffd;
    guest.poke(DATA + 0xffd, 0x0101_0101_0101_0103);
    guest.succeed();
    assert_eq!(guest.vcpu.registers.rax, 9);
}
