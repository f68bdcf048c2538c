//! A Markdown document as its tests see it: blocks with their directives, headings, links.

use std::{collections::HashSet, fs, ops::Range, path::Path};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The repository's root.
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) struct Document {
    /// Below the repository's root.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) headings: Vec<Heading>,
    pub(crate) links: Vec<Link>,
    /// What stands in backquotes in its text, with the number of the line.
    pub(crate) names: Vec<(usize, String)>,
    /// What a link's fragment may name.
    pub(crate) anchors: HashSet<String>,
    /// What is wrong with its form.
    pub(crate) faults: Vec<String>,
}

pub(crate) struct Block {
    /// Number of its first line behind the fence.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) directives: Vec<Directive>,
    pub(crate) text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Directive {
    Background,
    Clone,
    Fresh,
    Prints,
    Stopped,
    RunBy(String),
    SameAs(String),
}

pub(crate) struct Heading {
    pub(crate) line: usize,
    pub(crate) level: usize,
}

pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

/// All documents that the convention covers. The user's own procedure is run by
/// `tests/clients/user_procedure.rs`.
pub(crate) fn all() -> Vec<Document> {
    let mut paths: Vec<String> = fs::read_dir(ROOT)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .collect();
    find("docs", &mut paths);
    paths.retain(|path| path != "docs/trial-key-process.zh.md");
    paths.sort();
    paths.iter().map(|path| Document::read(path)).collect()
}

fn find(folder: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            find(&path, paths);
        } else if path.ends_with(".md") {
            paths.push(path);
        }
    }
}

impl Document {
    pub(crate) fn read(path: &str) -> Self {
        Self::parse(path, &fs::read_to_string(Path::new(ROOT).join(path)).unwrap())
    }

    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut document = Self {
            path: path.to_owned(),
            blocks: Vec::new(),
            headings: Vec::new(),
            links: Vec::new(),
            names: Vec::new(),
            anchors: HashSet::new(),
            faults: Vec::new(),
        };
        document.collect(text);
        document
    }

    pub(crate) fn is_chinese(&self) -> bool {
        self.path.ends_with(".zh.md")
    }

    fn collect(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        let line_of = |range: &Range<usize>| text[..range.start].matches('\n').count() + 1;
        let mut directing = HashSet::new();
        let mut comments = Vec::new();
        let mut code: Option<Block> = None;
        let mut heading: Option<String> = None;
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_GFM;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            let line = line_of(&range);
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    let (above, directives) = self.directives(&lines, line);
                    directing.extend(above);
                    let (language, text) = (info.trim().to_owned(), String::new());
                    code = Some(Block { line: line + 1, language, directives, text });
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)) => {
                    self.fault(line, "a block by indentation: fence it and name its language");
                }
                Event::End(TagEnd::CodeBlock) => self.blocks.extend(code.take()),
                Event::Start(Tag::Heading { level, .. }) => {
                    self.headings.push(Heading { line, level: level as usize });
                    heading = Some(String::new());
                }
                Event::End(TagEnd::Heading(_)) => self.add_anchor(&slug(&heading.take().unwrap())),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    self.links.push(Link { line, target: dest_url.into_string() });
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    if html.contains("<!-- docs:") {
                        comments.push(line);
                    }
                    for name in attributes(&html, &["id", "name"]) {
                        self.anchors.insert(name);
                    }
                    let targets = attributes(&html, &["href", "src"]).into_iter();
                    self.links.extend(targets.map(|target| Link { line, target }));
                }
                Event::Text(part) if code.is_some() => code.as_mut().unwrap().text.push_str(&part),
                Event::Text(ref part) | Event::Code(ref part) => {
                    if matches!(event, Event::Code(_)) {
                        self.names.push((line, part.to_string()));
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(part);
                    }
                }
                Event::SoftBreak if is_gap(&text[..range.start], &text[range.end..]) => {
                    self.fault(
                        line,
                        "a line break between Chinese characters shows as a space: join the lines",
                    );
                }
                _ => {}
            }
        }
        for line in comments.into_iter().filter(|line| !directing.contains(line)) {
            self.fault(line, "a directive belongs on the line before a fence");
        }
    }

    /// The directives above the fence on this line, and the numbers of their lines.
    fn directives(&mut self, lines: &[&str], fence: usize) -> (Vec<usize>, Vec<Directive>) {
        let above = lines[..fence - 1].iter().enumerate().rev();
        let comments = above.map_while(|(at, line)| {
            let comment = line.trim().strip_prefix("<!-- docs:")?.strip_suffix("-->")?;
            Some((at + 1, comment))
        });
        let comments: Vec<(usize, &str)> = comments.collect();
        let mut directives = Vec::new();
        for (line, comment) in comments.iter().rev() {
            for words in comment.split(',').map(str::trim) {
                match Directive::parse(words) {
                    Some(directive) => directives.push(directive),
                    None => self.fault(
                        *line,
                        &format!(
                            "unknown directive {words:?}; there are: background, clone, fresh, \
                             prints, stopped, same as PATH, run by PATH"
                        ),
                    ),
                }
            }
        }
        (comments.into_iter().map(|(line, _)| line).collect(), directives)
    }

    fn add_anchor(&mut self, slug: &str) {
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let mut names = std::iter::once(slug.to_owned()).chain(numbered);
        self.anchors.insert(names.find(|name| !self.anchors.contains(name)).unwrap());
    }

    fn fault(&mut self, line: usize, what: &str) {
        self.faults.push(format!("{}:{line}: {what}", self.path));
    }
}

impl Directive {
    fn parse(words: &str) -> Option<Self> {
        Some(match words {
            "background" => Self::Background,
            "clone" => Self::Clone,
            "fresh" => Self::Fresh,
            "prints" => Self::Prints,
            "stopped" => Self::Stopped,
            _ => match words.split_once(" as ").or_else(|| words.split_once(" by "))? {
                ("same", path) => Self::SameAs(path.trim().to_owned()),
                ("run", path) => Self::RunBy(path.trim().to_owned()),
                _ => return None,
            },
        })
    }
}

impl Block {
    pub(crate) fn is(&self, directive: &Directive) -> bool {
        self.directives.contains(directive)
    }

    /// Whether the document's own session runs it.
    pub(crate) fn is_run(&self) -> bool {
        let elsewhere =
            |directive: &Directive| matches!(directive, Directive::RunBy(_) | Directive::SameAs(_));
        ["sh", "console"].contains(&self.language.as_str())
            && !self.directives.iter().any(elsewhere)
    }
}

/// Whether Chinese text goes on where there is no space in it.
fn is_gap(before: &str, after: &str) -> bool {
    let is_wide = |letter: char| letter >= '\u{2e80}';
    before.chars().next_back().is_some_and(is_wide)
        && after.trim_start().chars().next().is_some_and(is_wide)
}

/// The values of these attributes in a piece of HTML.
fn attributes(html: &str, names: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    for name in names {
        for rest in html.split(&format!(" {name}=\"")).skip(1) {
            values.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    values
}

/// The fragment that GitHub gives to a heading.
pub(crate) fn slug(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    heading.to_lowercase().trim().chars().filter(kept).collect::<String>().replace(' ', "-")
}
