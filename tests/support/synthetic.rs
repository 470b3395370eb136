//! Archives written field by field, for versions that no installed program writes.

/// An archive of version 1.`minor` with a table `public.t (a int)` and the rows 1 and 2. As in old archives,
/// there is no entry for the search path, and the table is named without its schema.
pub fn synthetic(minor: u8, int_size: u8) -> Vec<u8> {
    let [head, contents, data] = synthetic_parts(minor, int_size);
    [head, contents, data].concat()
}

/// The header, the table of contents and the data of the same archive.
pub fn synthetic_parts(minor: u8, int_size: u8) -> [Vec<u8>; 3] {
    let mut out = b"PGDMP".to_vec();
    out.extend([1, minor, 0, int_size, 8, 1]);
    let int = |out: &mut Vec<u8>, v: i64| {
        out.push(u8::from(v < 0));
        out.extend(&v.unsigned_abs().to_le_bytes()[..int_size as usize]);
    };
    let text = |out: &mut Vec<u8>, s: Option<&str>| match s {
        Some(s) => {
            int(out, s.len() as i64);
            out.extend(s.as_bytes());
        }
        None => int(out, -1),
    };
    if minor >= 15 {
        out.push(0)
    } else {
        int(&mut out, 0)
    }
    for v in [1, 2, 3, 4, 10, 126, 0] {
        int(&mut out, v);
    }
    for s in ["db", "9.0.1", "9.0.1"] {
        text(&mut out, Some(s));
    }
    let head = std::mem::take(&mut out);
    int(&mut out, 2);
    for (id, desc, section, defn, copy, data) in [
        (1, "TABLE", 2, "CREATE TABLE t (a int);\n", None, false),
        (
            2,
            "TABLE DATA",
            3,
            "",
            Some("COPY t (a) FROM stdin;\n"),
            true,
        ),
    ] {
        int(&mut out, id);
        int(&mut out, i64::from(data));
        text(&mut out, Some("0"));
        text(&mut out, Some("0"));
        text(&mut out, Some("t"));
        text(&mut out, Some(desc));
        int(&mut out, section);
        text(&mut out, Some(defn));
        text(&mut out, None);
        text(&mut out, copy);
        text(&mut out, Some("public"));
        text(&mut out, Some(""));
        if minor >= 14 {
            text(&mut out, Some("heap"));
        }
        if minor >= 16 {
            int(&mut out, i64::from(b'r'));
        }
        text(&mut out, Some("me"));
        text(&mut out, Some("false"));
        if id == 2 {
            text(&mut out, Some("1"));
        }
        text(&mut out, None);
        out.push(if data { 1 } else { 3 });
        out.extend([0; 8]);
    }
    let contents = std::mem::take(&mut out);
    out.push(1);
    int(&mut out, 2);
    let rows = b"1\n2\n\\.\n\n\n";
    for chunk in [&rows[..3], &rows[3..]] {
        int(&mut out, chunk.len() as i64);
        out.extend(chunk);
    }
    int(&mut out, 0);
    [head, contents, out]
}
