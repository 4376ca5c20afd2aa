//! What a pattern means: from its text to what automata are made of.
//!
//! The syntax is that of Rust's `regex-lite`, which patterns had first: `\d`, `\s`, `\w`, `\b` and
//! `(?i)` know ASCII alone, while `.` and `[^a]` are whole characters. The translator of
//! `regex-syntax` would need tables of Unicode for this, or take bytes for characters.

use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    AssertionKind, Ast, ClassAsciiKind, ClassBracketed, ClassPerlKind, ClassSet, ClassSetItem,
    Flag, Flags, FlagsItemKind, GroupKind, RepetitionKind, RepetitionRange,
};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, Look, Repetition,
};

/// How deep groups may stand in each other.
const DEEPEST: u32 = 50;

/// The meaning of `text` where it has to match a value from its beginning to its end.
///
/// # Errors
/// What is wrong with it.
pub(super) fn whole(text: &str) -> Result<Hir, String> {
    let mut parser = ParserBuilder::new().nest_limit(DEEPEST).build();
    let ast = parser.parse(text);
    let ast = ast.map_err(|error| error.kind().to_string())?;
    let all = hir(&ast, &mut Mode::default())?;
    Ok(Hir::concat(vec![
        Hir::look(Look::Start),
        all,
        Hir::look(Look::End),
    ]))
}

/// What inline flags have set.
#[derive(Clone, Copy, Default)]
struct Mode {
    ignore_case: bool,
    multi_line: bool,
    dot_is_all: bool,
    crlf: bool,
}

impl Mode {
    fn set(&mut self, flags: &Flags) -> Result<(), String> {
        let mut on = true;
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Negation => on = false,
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.ignore_case = on,
                FlagsItemKind::Flag(Flag::MultiLine) => self.multi_line = on,
                FlagsItemKind::Flag(Flag::DotMatchesNewLine) => self.dot_is_all = on,
                FlagsItemKind::Flag(Flag::CRLF) => self.crlf = on,
                // Whether a repetition is greedy decides where a match ends, and it ends at the
                // end; the parser has done what (?x) asks for.
                FlagsItemKind::Flag(Flag::SwapGreed | Flag::IgnoreWhitespace) => {}
                FlagsItemKind::Flag(Flag::Unicode) => {
                    return Err("the flag u is not supported".to_owned());
                }
            }
        }
        Ok(())
    }
}

fn hir(ast: &Ast, mode: &mut Mode) -> Result<Hir, String> {
    let all = |asts: &[Ast], mode: &mut Mode| {
        let all = asts.iter().map(|ast| hir(ast, mode));
        all.collect::<Result<Vec<_>, _>>()
    };
    Ok(match ast {
        Ast::Empty(_) => Hir::empty(),
        Ast::Flags(set) => {
            mode.set(&set.flags)?;
            Hir::empty()
        }
        Ast::Literal(literal) if mode.ignore_case && literal.c.is_ascii_alphabetic() => {
            class(&folded(of(&[(literal.c, literal.c)])))
        }
        Ast::Literal(literal) => Hir::literal(literal.c.to_string().into_bytes()),
        Ast::Dot(_) => {
            let mut but = match (mode.dot_is_all, mode.crlf) {
                (true, _) => of(&[]),
                (false, true) => of(&[('\r', '\r'), ('\n', '\n')]),
                (false, false) => of(&[('\n', '\n')]),
            };
            but.negate();
            class(&but)
        }
        Ast::Assertion(assertion) => Hir::look(look(&assertion.kind, *mode)),
        Ast::ClassUnicode(_) => return Err(NO_UNICODE.to_owned()),
        Ast::ClassPerl(perl) => class(&of_perl(&perl.kind, perl.negated)),
        Ast::ClassBracketed(bracketed) => class(&of_brackets(bracketed, *mode)?),
        Ast::Repetition(repetition) => {
            let (min, max) = match repetition.op.kind {
                RepetitionKind::ZeroOrOne => (0, Some(1)),
                RepetitionKind::ZeroOrMore => (0, None),
                RepetitionKind::OneOrMore => (1, None),
                RepetitionKind::Range(RepetitionRange::Exactly(n)) => (n, Some(n)),
                RepetitionKind::Range(RepetitionRange::AtLeast(n)) => (n, None),
                RepetitionKind::Range(RepetitionRange::Bounded(n, m)) => (n, Some(m)),
            };
            Hir::repetition(Repetition {
                min,
                max,
                greedy: true,
                sub: Box::new(hir(&repetition.ast, mode)?),
            })
        }
        Ast::Group(group) => {
            let mut inner = *mode;
            if let GroupKind::NonCapturing(flags) = &group.kind {
                inner.set(flags)?;
            }
            hir(&group.ast, &mut inner)?
        }
        Ast::Alternation(alternation) => Hir::alternation(all(&alternation.asts, mode)?),
        Ast::Concat(concat) => Hir::concat(all(&concat.asts, mode)?),
    })
}

const NO_UNICODE: &str = "Unicode classes are not supported";

fn look(kind: &AssertionKind, mode: Mode) -> Look {
    match (kind, mode.multi_line, mode.crlf) {
        (AssertionKind::StartText, ..) | (AssertionKind::StartLine, false, _) => Look::Start,
        (AssertionKind::EndText, ..) | (AssertionKind::EndLine, false, _) => Look::End,
        (AssertionKind::StartLine, true, false) => Look::StartLF,
        (AssertionKind::EndLine, true, false) => Look::EndLF,
        (AssertionKind::StartLine, true, true) => Look::StartCRLF,
        (AssertionKind::EndLine, true, true) => Look::EndCRLF,
        (AssertionKind::WordBoundary, ..) => Look::WordAscii,
        (AssertionKind::NotWordBoundary, ..) => Look::WordAsciiNegate,
        (AssertionKind::WordBoundaryStart | AssertionKind::WordBoundaryStartAngle, ..) => {
            Look::WordStartAscii
        }
        (AssertionKind::WordBoundaryEnd | AssertionKind::WordBoundaryEndAngle, ..) => {
            Look::WordEndAscii
        }
        (AssertionKind::WordBoundaryStartHalf, ..) => Look::WordStartHalfAscii,
        (AssertionKind::WordBoundaryEndHalf, ..) => Look::WordEndHalfAscii,
    }
}

fn of(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(
        ranges
            .iter()
            .map(|(from, to)| ClassUnicodeRange::new(*from, *to)),
    )
}

fn of_perl(kind: &ClassPerlKind, negated: bool) -> ClassUnicode {
    let mut class = match kind {
        ClassPerlKind::Digit => of_ascii(&ClassAsciiKind::Digit),
        ClassPerlKind::Space => of_ascii(&ClassAsciiKind::Space),
        ClassPerlKind::Word => of_ascii(&ClassAsciiKind::Word),
    };
    if negated {
        class.negate();
    }
    class
}

/// What POSIX says of its classes, for ASCII.
fn of_ascii(kind: &ClassAsciiKind) -> ClassUnicode {
    of(match kind {
        ClassAsciiKind::Alnum => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        ClassAsciiKind::Alpha => &[('A', 'Z'), ('a', 'z')],
        ClassAsciiKind::Ascii => &[('\0', '\x7f')],
        ClassAsciiKind::Blank => &[('\t', '\t'), (' ', ' ')],
        ClassAsciiKind::Cntrl => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        ClassAsciiKind::Digit => &[('0', '9')],
        ClassAsciiKind::Graph => &[('!', '~')],
        ClassAsciiKind::Lower => &[('a', 'z')],
        ClassAsciiKind::Print => &[(' ', '~')],
        ClassAsciiKind::Punct => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        ClassAsciiKind::Space => &[('\t', '\r'), (' ', ' ')],
        ClassAsciiKind::Upper => &[('A', 'Z')],
        ClassAsciiKind::Word => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        ClassAsciiKind::Xdigit => &[('0', '9'), ('A', 'F'), ('a', 'f')],
    })
}

fn of_brackets(bracketed: &ClassBracketed, mode: Mode) -> Result<ClassUnicode, String> {
    let ClassSet::Item(item) = &bracketed.kind else {
        return Err("&&, -- and ~~ between classes are not supported".to_owned());
    };
    let mut class = of_item(item, mode)?;
    if mode.ignore_case {
        class = folded(class);
    }
    if bracketed.negated {
        class.negate();
    }
    Ok(class)
}

fn of_item(item: &ClassSetItem, mode: Mode) -> Result<ClassUnicode, String> {
    Ok(match item {
        ClassSetItem::Empty(_) => of(&[]),
        ClassSetItem::Literal(literal) => of(&[(literal.c, literal.c)]),
        ClassSetItem::Range(range) => of(&[(range.start.c, range.end.c)]),
        ClassSetItem::Ascii(ascii) => {
            let mut class = of_ascii(&ascii.kind);
            if ascii.negated {
                class.negate();
            }
            class
        }
        ClassSetItem::Unicode(_) => return Err(NO_UNICODE.to_owned()),
        ClassSetItem::Perl(perl) => of_perl(&perl.kind, perl.negated),
        ClassSetItem::Bracketed(inner) => of_brackets(inner, mode)?,
        ClassSetItem::Union(union) => {
            let mut all = of(&[]);
            for item in &union.items {
                all.union(&of_item(item, mode)?);
            }
            all
        }
    })
}

/// With the letters of both cases where it has one.
fn folded(mut class: ClassUnicode) -> ClassUnicode {
    for (from, to, other) in [('a', 'z', 'A'), ('A', 'Z', 'a')] {
        let mut letters = of(&[(from, to)]);
        letters.intersect(&class);
        let moved = |c: char| char::from((c as u8) - (from as u8) + (other as u8));
        let ranges = letters.iter();
        let ranges: Vec<_> = ranges.map(|r| (moved(r.start()), moved(r.end()))).collect();
        class.union(&of(&ranges));
    }
    class
}

/// What matches a character of a class. Only values that are UTF-8 are matched, so where all that
/// is not ASCII belongs to it, the first byte of a character tells its length: a fraction of the
/// states that the exact ranges would take.
fn class(class: &ClassUnicode) -> Hir {
    let last = class.ranges().last();
    if !last.is_some_and(|last| last.start() <= '\u{80}' && last.end() == char::MAX) {
        return Hir::class(Class::Unicode(class.clone()));
    }
    let bytes = |ranges: Vec<ClassBytesRange>| Hir::class(Class::Bytes(ClassBytes::new(ranges)));
    let byte = |from: u8, to: u8| bytes(vec![ClassBytesRange::new(from, to)]);
    let mut ascii = of(&[('\0', '\x7f')]);
    ascii.intersect(class);
    let ascii = ascii.iter();
    let ascii = ascii.map(|r| ClassBytesRange::new(r.start() as u8, r.end() as u8));
    // A first byte, and as many more as it says.
    let more = |first: Hir| Hir::concat(vec![first, byte(0x80, 0xbf)]);
    let three = Hir::alternation(vec![byte(0xe0, 0xef), more(byte(0xf0, 0xf4))]);
    let two = Hir::alternation(vec![byte(0xc2, 0xdf), more(three)]);
    Hir::alternation(vec![bytes(ascii.collect()), more(two)])
}
