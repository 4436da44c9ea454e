use super::*;

fn settings(text: &str) -> WindowSettings {
    toml::from_str(text).unwrap()
}

fn window(text: &str) -> Window {
    let settings = settings(text);
    let zone = settings.zone.as_deref().unwrap_or("UTC");
    settings.compile(TimeZone::get(zone).unwrap()).unwrap()
}

fn at(text: &str) -> OffsetDateTime {
    tagtrail_proto::instant::parse(text).unwrap()
}

fn shown(at: Option<OffsetDateTime>) -> String {
    at.map_or_else(String::new, |at| {
        tagtrail_proto::instant::format(at).unwrap()
    })
}

/// Each row: the time, whether the window is open, and the next change.
fn check(window: &Window, rows: &[(&str, bool, &str)]) {
    for (now, open, changes_at) in rows {
        let state = window.at(at(now));
        assert_eq!(state.closed.is_none(), *open, "{now}: {state:?}");
        assert_eq!(shown(state.changes_at), *changes_at, "{now}");
    }
}

#[test]
fn a_window_of_days_and_hours_opens_and_closes_by_the_clock_of_its_zone() {
    let window = window("open = [\"mon-fri 09:00-16:00\"]\nzone = \"Europe/Berlin\"");
    check(
        &window,
        &[
            // Friday, 2026-03-27; on Sunday the clocks go forward.
            ("2026-03-27T07:59:59Z", false, "2026-03-27T08:00:00Z"),
            ("2026-03-27T08:00:00Z", true, "2026-03-27T15:00:00Z"),
            ("2026-03-27T15:00:00Z", false, "2026-03-30T07:00:00Z"),
            ("2026-03-30T07:00:00Z", true, "2026-03-30T14:00:00Z"),
        ],
    );
    let closed = window.at(at("2026-03-28T12:00:00Z")).closed.unwrap();
    assert_eq!(closed, "open only mon-fri 09:00-16:00 (Europe/Berlin)");
}

#[test]
fn closed_ranges_win_and_dates_include_their_last_day() {
    let window = window(
        "open = [\"00:00-24:00\"]\nclosed = [\"2026-12-20/2027-01-04\", { cron = \"0 22 * * 5\", for = \"58h\" }]\nzone = \"Europe/Berlin\"",
    );
    check(
        &window,
        &[
            ("2026-12-17T12:00:00Z", true, "2026-12-18T21:00:00Z"),
            // From Friday on by the cron expression, and then by the dates.
            ("2026-12-18T21:00:00Z", false, "2027-01-04T23:00:00Z"),
            ("2027-01-04T22:59:59Z", false, "2027-01-04T23:00:00Z"),
            ("2027-01-04T23:00:00Z", true, "2027-01-08T21:00:00Z"),
        ],
    );
    let closed = |now| window.at(at(now)).closed.unwrap();
    assert_eq!(
        closed("2026-12-24T12:00:00Z"),
        "closed by 2026-12-20/2027-01-04 (Europe/Berlin)"
    );
    assert_eq!(
        closed("2027-01-09T12:00:00Z"),
        "closed by 58h after each time of cron \"0 22 * * 5\" (Europe/Berlin)"
    );
}

#[test]
fn a_skipped_time_counts_as_the_end_of_the_skipped_span_and_a_repeated_one_as_the_first() {
    // On 2026-03-29 the clock goes from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
    let begins = window("open = [\"02:30-05:00\"]\nzone = \"Europe/Berlin\"");
    check(
        &begins,
        &[
            ("2026-03-29T00:59:00Z", false, "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:00:00Z", true, "2026-03-29T03:00:00Z"),
            ("2026-10-25T00:00:00Z", false, "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:30:00Z", true, "2026-10-25T04:00:00Z"),
        ],
    );
    let ends = window("open = [\"01:00-02:30\"]\nzone = \"Europe/Berlin\"");
    check(
        &ends,
        &[
            ("2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:00:00Z", false, "2026-03-29T23:00:00Z"),
            ("2026-10-25T00:00:00Z", true, "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:15:00Z", false, "2026-10-26T00:00:00Z"),
        ],
    );
    let cron =
        window("closed = [{ cron = \"30 2 * * *\", for = \"1h\" }]\nzone = \"Europe/Berlin\"");
    check(
        &cron,
        &[
            ("2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:00:00Z", false, "2026-03-29T02:00:00Z"),
            ("2026-10-25T00:00:00Z", true, "2026-10-25T00:30:00Z"),
            ("2026-10-25T01:29:00Z", false, "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:30:00Z", true, "2026-10-26T01:30:00Z"),
        ],
    );
}

#[test]
fn spans_may_pass_midnight_and_touch_each_other() {
    let night = window("open = [\"fri-sun 22:00-06:00\"]");
    check(
        &night,
        &[
            // 2026-03-02 is a Monday.
            ("2026-03-02T05:59:00Z", true, "2026-03-02T06:00:00Z"),
            ("2026-03-02T23:00:00Z", false, "2026-03-06T22:00:00Z"),
            ("2026-03-07T01:00:00Z", true, "2026-03-07T06:00:00Z"),
        ],
    );
    let weekend = window("closed = [\"sat,sun\"]");
    check(
        &weekend,
        &[
            ("2026-03-06T12:00:00Z", true, "2026-03-07T00:00:00Z"),
            ("2026-03-07T12:00:00Z", false, "2026-03-09T00:00:00Z"),
        ],
    );
    // A window that closes for a minute, once.
    let moment = window("closed = [\"2026-03-07T12:00/2026-03-07T12:01\"]");
    check(
        &moment,
        &[
            ("2026-03-07T12:00:30Z", false, "2026-03-07T12:01:00Z"),
            ("2026-03-07T12:01:00Z", true, ""),
        ],
    );
    let past = window("open = [\"2026-03-07\"]");
    check(&past, &[("2026-03-08T00:00:00Z", false, "")]);
}

#[test]
fn spans_of_a_cron_expression_may_overlap_without_end() {
    let always = window("open = [{ cron = \"* * * * *\", for = \"2m\" }]");
    let state = always.at(at("2026-03-07T12:00:30Z"));
    assert_eq!(state.closed, None);
    // The next change is too far away, but the window is open for hours.
    assert!(state.changes_at.unwrap() > at("2026-03-07T20:00:00Z"));
}

#[test]
fn cron_fields_have_steps_names_and_both_kinds_of_days() {
    for (cron, now, next) in [
        (
            "*/20 * * * *",
            "2026-03-07T12:01:00Z",
            "2026-03-07T12:20:00Z",
        ),
        (
            "5/20 8-10/2 * * *",
            "2026-03-07T08:46:00Z",
            "2026-03-07T10:05:00Z",
        ),
        (
            "0 0 1 jan *",
            "2026-03-07T12:00:00Z",
            "2027-01-01T00:00:00Z",
        ),
        ("0 0 29 2 *", "2026-03-07T12:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 0 * * 7", "2026-03-07T12:00:00Z", "2026-03-08T00:00:00Z"),
        // The 13th, or a Friday.
        (
            "0 0 13 * fri",
            "2026-03-07T12:00:00Z",
            "2026-03-13T00:00:00Z",
        ),
        (
            "0 0 13 * fri",
            "2026-04-10T12:00:00Z",
            "2026-04-13T00:00:00Z",
        ),
        // The 13th, if it is a Friday.
        (
            "0 0 13 * */5",
            "2026-03-14T12:00:00Z",
            "2026-09-13T00:00:00Z",
        ),
    ] {
        let window = window(&format!("closed = [{{ cron = \"{cron}\", for = \"1m\" }}]"));
        let state = window.at(at(now));
        assert_eq!(
            (state.closed, shown(state.changes_at).as_str()),
            (None, next),
            "{cron}"
        );
    }
}

#[test]
fn a_wrong_window_is_refused_with_its_cure() {
    for (text, expected) in [
        ("", "open: the window has no range; write open = "),
        (
            "open = [\"mo-fr 9-16\"]",
            "open: \"mo-fr 9-16\" is no range; write days and clock times",
        ),
        (
            "open = [\"09:00-09:00\"]",
            "open: \"09:00-09:00\" has no length; a whole day is",
        ),
        (
            "open = [\"9:00-16:00\"]",
            "open: \"9:00-16:00\" is no range",
        ),
        (
            "open = [\"09:00-24:01\"]",
            "open: \"09:00-24:01\" is no range",
        ),
        (
            "closed = [\"2026-12-20/2026-12-19\"]",
            "closed: \"2026-12-20/2026-12-19\" ends before",
        ),
        (
            "closed = [\"2026-02-30\"]",
            "closed: \"2026-02-30\" is no range",
        ),
        (
            "closed = [\"2026-12-20/soon\"]",
            "closed: \"2026-12-20/soon\" is no pair of dates; write",
        ),
        (
            "closed = [{ cron = \"0 22 * *\", for = \"58h\" }]",
            "closed: \"0 22 * *\" has 4 fields; a cron expression has five",
        ),
        (
            "closed = [{ cron = \"0 24 * * *\", for = \"58h\" }]",
            "closed: \"24\" is no hour of a cron expression: write *, a number from 0 to 23",
        ),
        (
            "closed = [{ cron = \"0 0 30 2 *\", for = \"1h\" }]",
            "closed: \"0 0 30 2 *\" names a day that its months do not have",
        ),
        (
            "closed = [{ cron = \"0 0 * * *\", for = \"32d\" }]",
            "closed: 32d is too long; write at most 31d",
        ),
        (
            "closed = [{ cron = \"0 0 * * *\", for = \"30s\" }]",
            "closed: \"30s\" is too short; write at least 1m",
        ),
    ] {
        let refused = settings(text).compile(TimeZone::UTC).unwrap_err();
        assert!(refused.to_string().starts_with(expected), "{refused}");
    }
}
