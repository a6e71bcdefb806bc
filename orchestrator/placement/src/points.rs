//! Finds points: that of a user from round trips to some nodes, and the middle of several.
//!
//! Invariants: the steps are bounded in number, and no input leads out of the numbers that a
//! coordinate has.

use crate::near::Point;

/// Steps towards a point; each makes it better, and the last ones by microseconds.
const STEPS_MAX: usize = 256;

/// Done when a step is shorter, in microseconds: nobody measures finer.
const STEP_US_MIN: f64 = 1.0;

/// References that say where a point is; more say the same again.
pub const REFERENCES_MAX: usize = 64;

/// The geometric median of points: the sum of distances to it is the least. Heights come in
/// as their median. `None` of nothing.
pub fn geometric_median(points: &[Point]) -> Option<Point> {
    let first = points.first()?;
    let count = f64::from(u32::try_from(points.len()).ok()?);
    let middle = |of: fn(&Point) -> i32| {
        points.iter().map(|point| f64::from(of(point))).sum::<f64>() / count
    };
    let mut here = (middle(|point| point.x_us), middle(|point| point.y_us));
    for _ in 0..STEPS_MAX {
        let next = weiszfeld_step(points, here);
        let moved = length(next.0 - here.0, next.1 - here.1);
        here = next;
        if moved < STEP_US_MIN {
            break;
        }
    }
    let mut heights: Vec<u32> = points.iter().map(|point| point.height_us).collect();
    heights.sort_unstable();
    let height_us = heights.get(points.len() / 2).copied().unwrap_or(first.height_us);
    Some(Point { x_us: whole(here.0), y_us: whole(here.1), height_us })
}

/// Weiszfeld's step, with Vardi and Zhang's rule where it stands on one of the points.
fn weiszfeld_step(points: &[Point], here: (f64, f64)) -> (f64, f64) {
    let (mut x, mut y, mut weight, mut on_it) = (0.0, 0.0, 0.0, 0.0);
    let (mut pull_x, mut pull_y) = (0.0, 0.0);
    for point in points {
        let (px, py) = (f64::from(point.x_us), f64::from(point.y_us));
        let away = length(px - here.0, py - here.1);
        if away < STEP_US_MIN / 2.0 {
            on_it += 1.0;
            continue;
        }
        weight += 1.0 / away;
        x += px / away;
        y += py / away;
        pull_x += (px - here.0) / away;
        pull_y += (py - here.1) / away;
    }
    if weight == 0.0 {
        return here;
    }
    let target = (x / weight, y / weight);
    let pull = length(pull_x, pull_y);
    // Those on the point hold it with their number against the pull of the others.
    let stay = if pull == 0.0 { 1.0 } else { (on_it / pull).min(1.0) };
    (target.0 + (here.0 - target.0) * stay, target.1 + (here.1 - target.1) * stay)
}

/// The point from which round trips to the references would take what was measured, as well
/// as that can be: the sum of squared differences is the least. It needs three references that
/// do not lie on a line; `None` with fewer than three. The point has no height of its own: what
/// its way to the net costs is in the measurements.
pub fn multilaterate(references: &[(Point, u32)]) -> Option<Point> {
    let references = &references[..references.len().min(REFERENCES_MAX)];
    if references.len() < 3 {
        return None;
    }
    let starts = starts(references);
    let best = starts.into_iter().map(|start| descend(references, start));
    let best = best.min_by(|a, b| residual(references, *a).total_cmp(&residual(references, *b)))?;
    Some(Point { x_us: whole(best.0), y_us: whole(best.1), height_us: 0 })
}

/// The sum has several valleys: the middle and places around it lead to different ones.
fn starts(references: &[(Point, u32)]) -> Vec<(f64, f64)> {
    let points: Vec<Point> = references.iter().map(|(point, _)| *point).collect();
    let middle = geometric_median(&points).unwrap_or_default();
    let (x, y) = (f64::from(middle.x_us), f64::from(middle.y_us));
    let far = references.iter().map(|(_, us)| f64::from(*us)).fold(0.0, f64::max);
    let around = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)];
    let mut starts: Vec<_> =
        around.iter().map(|(east, north)| (x + far * east, y + far * north)).collect();
    starts.push((x, y));
    starts
}

/// Steps of the mean correction: each reference draws the point to where its distance is right.
fn descend(references: &[(Point, u32)], start: (f64, f64)) -> (f64, f64) {
    let count = f64::from(u32::try_from(references.len()).unwrap_or(u32::MAX));
    let mut here = start;
    for _ in 0..STEPS_MAX {
        let (mut x, mut y) = (0.0, 0.0);
        for (point, us) in references {
            let (dx, dy) = (here.0 - f64::from(point.x_us), here.1 - f64::from(point.y_us));
            let away = length(dx, dy);
            let (dx, dy) = if away == 0.0 { (1.0, 0.0) } else { (dx / away, dy / away) };
            x += f64::from(point.x_us) + dx * radius(point, *us);
            y += f64::from(point.y_us) + dy * radius(point, *us);
        }
        let next = (x / count, y / count);
        let moved = length(next.0 - here.0, next.1 - here.1);
        here = next;
        if moved < STEP_US_MIN / 8.0 {
            break;
        }
    }
    here
}

/// What is left of a round trip on the plane.
fn radius(point: &Point, us: u32) -> f64 {
    f64::from(us.saturating_sub(point.height_us))
}

fn residual(references: &[(Point, u32)], at: (f64, f64)) -> f64 {
    let differences = references.iter().map(|(point, us)| {
        let away = length(at.0 - f64::from(point.x_us), at.1 - f64::from(point.y_us));
        away - radius(point, *us)
    });
    differences.map(|difference| difference * difference).sum()
}

fn length(x: f64, y: f64) -> f64 {
    (x * x + y * y).sqrt()
}

fn whole(number: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "held at the bounds of the type")]
    let whole = number.round() as i32;
    whole
}

#[cfg(test)]
mod tests;
