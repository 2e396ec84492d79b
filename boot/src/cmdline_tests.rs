// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Accepted and rejected words.

use super::*;
use proptest::prelude::*;

fn appended(words: &str) -> Result<String, CommandLineError> {
    let mut line = CommandLine::new();
    line.append(words)?;
    Ok(line.as_str().to_owned())
}

#[test]
fn options_keep_the_order_of_their_pushes() {
    let mut line = CommandLine::new();
    line.push_console(Console::Serial(0)).unwrap();
    line.push_console(Console::Virtio(0)).unwrap().push_flag("quiet").unwrap().push_value("panic", -1).unwrap();
    line.push_virtio_mmio(GuestAddress(0xd000_1000), 6).unwrap().append("  loglevel=7  debug ").unwrap();
    let expected = "console=ttyS0 console=hvc0 quiet panic=-1 virtio_mmio.device=4K@0xd0001000:6 loglevel=7  debug";
    assert_eq!(line.as_str(), expected);
    assert_eq!(line.to_bytes().last(), Some(&0));
}

#[test]
fn value_with_blanks_is_quoted_and_with_a_quote_rejected() {
    let mut line = CommandLine::new();
    line.push_value("dyndbg", "file a.c +p").unwrap();
    assert_eq!(line.as_str(), "dyndbg=\"file a.c +p\"");
    assert!(matches!(line.push_value("a", "x\" init=\"y"), Err(CommandLineError::NotOneWord(_))));
    for name in ["", "a b", "a\"b"] {
        assert_eq!(line.push_flag(name), Err(CommandLineError::NotOneWord(name.to_owned())));
    }
}

#[test]
fn line_holds_2047_bytes_and_not_one_more() {
    assert_eq!(appended(&"x".repeat(2047)).unwrap().len(), 2047);
    assert_eq!(appended(&"x".repeat(2048)), Err(CommandLineError::TooLong { length: 2048 }));
    let mut line = CommandLine::new();
    line.append(&"x".repeat(2044)).unwrap();
    assert_eq!(line.push_flag("yzz"), Err(CommandLineError::TooLong { length: 2048 }));
    assert!(line.push_flag("yz").is_ok());
}

#[test]
fn all_virtio_devices_fit_beside_1_kib_of_options() {
    let mut line = CommandLine::new();
    line.append(&"x".repeat(1024)).unwrap();
    for index in 0..u64::from(layout::VIRTIO_MMIO_COUNT) {
        let window = GuestAddress(layout::VIRTIO_MMIO_BASE.0 + index * layout::VIRTIO_MMIO_WINDOW);
        line.push_virtio_mmio(window, layout::FIRST_VIRTIO_IRQ + index as u32).unwrap();
    }
}

#[test]
fn append_rejects_bytes_that_are_not_printable_ascii() {
    let rejected = [("a\0b", 0), ("a\nb", 0x0a), ("a\tb", 0x09), ("a\u{7f}b", 0x7f), ("\u{80}", 0xc2), ("ä", 0xc3)];
    for (words, byte) in rejected {
        assert_eq!(appended(words), Err(CommandLineError::Byte(byte)), "{words:?}");
    }
}

#[test]
fn append_rejects_an_open_quote() {
    assert_eq!(appended("a=\"b c\" d"), Ok("a=\"b c\" d".to_owned()));
    for words in ["\"", "a=\"b", "a \"b c", "\"\"\""] {
        assert_eq!(appended(words), Err(CommandLineError::OpenQuote), "{words}");
    }
}

#[test]
fn append_rejects_every_form_of_an_init_option() {
    for words in ["init=/bin/sh", "a rdinit=/x", "\"init=/bin/sh\"", "init", "\"rdinit\"=/x", "noinitrd", "a -- b"] {
        assert!(matches!(appended(words), Err(CommandLineError::ReplacesInit(_))), "{words}");
    }
    for words in ["initcall_debug", "init_on_alloc=1", "a=init=/x", "a=\" init=/x\"", "systemd.init=1", "x--"] {
        assert_eq!(appended(words), Ok(words.to_owned()));
    }
}

#[test]
fn contains_matches_names_with_dashes_or_underscores() {
    let mut line = CommandLine::new();
    line.append("clearcpuid=smap no-timer_check \"quoted=1 2\"").unwrap();
    assert!(line.contains("clearcpuid") && line.contains("no_timer-check") && line.contains("quoted"));
    assert!(!line.contains("smap") && !line.contains("2") && !line.contains("clear"));
}

proptest! {
    #[test]
    fn accepted_line_is_printable_short_and_without_init(words in "[ -~]{0,60}") {
        let Ok(line) = appended(&words) else { return Ok(()) };
        prop_assert!(line.len() < layout::COMMAND_LINE_SIZE);
        prop_assert!(line.bytes().filter(|byte| *byte == b'"').count() % 2 == 0);
        prop_assert!(!line.split(' ').any(|word| word.starts_with("init=") && line.find('"').is_none()));
    }

    #[test]
    fn append_accepts_any_text_without_panic(words in any::<String>()) {
        let _ = appended(&words);
    }
}
