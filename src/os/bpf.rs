//! An assembler for classic BPF (linux/filter.h, linux/bpf_common.h) with labels.

use socket2::SockFilter;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_BYTE_AT_X: u16 = 0x50;
const X_IS: u16 = 0x01;
const X_IS_A: u16 = 0x07;
const X_IS_STORED: u16 = 0x61;
const STORE_X: u16 = 0x03;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const SHIFT_RIGHT: u16 = 0x74;
const ADD_X: u16 = 0x0c;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Most instructions in one kernel program: BPF_MAXINSNS.
const LONGEST: usize = 4096;

/// A jump target, placed by [`Program::here`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label(usize);

/// A program under construction. Jumps only go forward, as the kernel requires.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Code, instructions to skip if the test holds, instructions to skip if it fails, operand.
    ops: Vec<(u16, u8, u8, u32)>,
    /// Position of each label.
    labels: Vec<Option<usize>>,
    /// Jump instructions with their labels.
    jumps: Vec<(usize, Label)>,
}

impl Program {
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` here.
    pub(crate) fn here(&mut self, label: Label) {
        self.labels[label.0] = Some(self.ops.len());
    }

    fn op(&mut self, code: u16, operand: u32) {
        self.ops.push((code, 0, 0, operand));
    }

    pub(crate) fn word(&mut self, at: u32) {
        self.op(LOAD_WORD, at);
    }

    pub(crate) fn half(&mut self, at: u32) {
        self.op(LOAD_HALF, at);
    }

    pub(crate) fn byte(&mut self, at: u32) {
        self.op(LOAD_BYTE, at);
    }

    pub(crate) fn word_at_x(&mut self, at: u32) {
        self.op(LOAD_WORD_AT_X, at);
    }

    pub(crate) fn half_at_x(&mut self, at: u32) {
        self.op(LOAD_HALF_AT_X, at);
    }

    pub(crate) fn byte_at_x(&mut self, at: u32) {
        self.op(LOAD_BYTE_AT_X, at);
    }

    pub(crate) fn shift_right(&mut self, bits: u32) {
        self.op(SHIFT_RIGHT, bits);
    }

    /// Sets X and the value that [`Program::x_is_base`] restores.
    pub(crate) fn base(&mut self, at: u32) {
        self.op(X_IS, at);
        self.op(STORE_X, 0);
    }

    pub(crate) fn x_is_base(&mut self) {
        self.op(X_IS_STORED, 0);
    }

    /// Moves X from the start to the end of the IPv4 header.
    pub(crate) fn header_length_v4(&mut self) {
        self.op(LOAD_BYTE_AT_X, 0);
        self.op(AND, 0x0f);
        self.op(SHIFT_LEFT, 2);
        self.op(ADD_X, 0);
        self.op(X_IS_A, 0);
    }

    pub(crate) fn goto(&mut self, to: Label) {
        self.jumps.push((self.ops.len(), to));
        self.op(JUMP, 0);
    }

    /// A test can jump over at most 255 instructions, so each test skips a plain jump, which reaches any distance.
    fn test(&mut self, code: u16, operand: u32, holds: bool, to: Label) {
        self.ops.push((code, u8::from(!holds), u8::from(holds), operand));
        self.goto(to);
    }

    pub(crate) fn if_equal(&mut self, value: u32, to: Label) {
        self.test(IF_EQUAL, value, true, to);
    }

    pub(crate) fn unless_equal(&mut self, value: u32, to: Label) {
        self.test(IF_EQUAL, value, false, to);
    }

    pub(crate) fn if_any_bit(&mut self, bits: u32, to: Label) {
        self.test(IF_ANY_BIT, bits, true, to);
    }

    pub(crate) fn if_at_least(&mut self, value: u32, to: Label) {
        self.test(IF_AT_LEAST, value, true, to);
    }

    pub(crate) fn unless_at_least(&mut self, value: u32, to: Label) {
        self.test(IF_AT_LEAST, value, false, to);
    }

    pub(crate) fn accept(&mut self) {
        self.op(RETURN, u32::MAX);
    }

    pub(crate) fn reject(&mut self) {
        self.op(RETURN, 0);
    }

    /// The program in the kernel's form. `None` if it is too long, or a label is missing or precedes its jump.
    pub(crate) fn assemble(mut self) -> Option<Vec<SockFilter>> {
        for (at, label) in self.jumps {
            let to = self.labels[label.0]?;
            self.ops[at].3 = u32::try_from(to.checked_sub(at + 1)?).ok()?;
        }
        let all: Vec<SockFilter> =
            self.ops.into_iter().map(|(code, yes, no, k)| SockFilter::new(code, yes, no, k)).collect();
        (all.len() <= LONGEST).then_some(all)
    }
}
