//! Pieces of a dashboard, in Grafana's JSON model.

use serde_json::{Value, json};

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;
/// The version of the model that is written; newer Grafanas convert it.
const SCHEMA_VERSION: u64 = 39;

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    expression: String,
    legend: String,
    shape: Shape,
}

/// What an answer is wanted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Range,
    Instant,
    Table,
    Heatmap,
}

impl Query {
    /// A line per series over time.
    pub fn range(expression: impl Into<String>, legend: &str) -> Self {
        Self::new(expression, legend, Shape::Range)
    }

    /// The newest value only.
    pub fn instant(expression: impl Into<String>) -> Self {
        Self::new(expression, "", Shape::Instant)
    }

    /// The newest values with their labels as columns.
    pub fn table(expression: impl Into<String>) -> Self {
        Self::new(expression, "", Shape::Table)
    }

    /// A histogram over time.
    pub fn heatmap(expression: impl Into<String>) -> Self {
        Self::new(expression, "{{le}}", Shape::Heatmap)
    }

    fn new(expression: impl Into<String>, legend: &str, shape: Shape) -> Self {
        Self {
            expression: expression.into(),
            legend: legend.to_owned(),
            shape,
        }
    }

    fn json(&self, number: usize) -> Value {
        let instant = matches!(self.shape, Shape::Instant | Shape::Table);
        let format = match self.shape {
            Shape::Range | Shape::Instant => "time_series",
            Shape::Table => "table",
            Shape::Heatmap => "heatmap",
        };
        json!({
            "refId": reference(number),
            "datasource": datasource(),
            "expr": self.expression,
            "legendFormat": self.legend,
            "format": format,
            "instant": instant,
            "range": !instant,
        })
    }
}

/// A, B, C, ….
fn reference(number: usize) -> String {
    char::from(b'A' + number as u8).to_string()
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// A panel without a place.
#[derive(Clone, Debug)]
pub struct Panel {
    json: Value,
    width: u64,
    height: u64,
}

impl Panel {
    fn new(kind: &str, title: &str, description: &str, queries: &[Query]) -> Self {
        let targets = queries.iter().enumerate();
        let targets: Vec<Value> = targets.map(|(number, query)| query.json(number)).collect();
        Self {
            json: json!({
                "type": kind,
                "title": title,
                "description": description,
                "datasource": datasource(),
                "targets": targets,
                "fieldConfig": {"defaults": {}, "overrides": []},
                "options": {},
            }),
            width: 12,
            height: 8,
        }
    }

    /// Lines over time.
    pub fn lines(title: &str, description: &str, queries: &[Query]) -> Self {
        let mut panel = Self::new("timeseries", title, description, queries);
        panel.json["fieldConfig"]["defaults"]["custom"] =
            json!({"lineWidth": 1, "fillOpacity": 0, "spanNulls": false});
        panel.json["options"] = json!({
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "multi", "sort": "desc"},
        });
        panel
    }

    /// One number.
    pub fn number(title: &str, description: &str, query: Query) -> Self {
        let mut panel = Self::new("stat", title, description, &[query]);
        panel.json["options"] = json!({
            "colorMode": "value",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
        });
        panel.size(4, 4)
    }

    /// Labels and numbers in rows, one query a column.
    pub fn table(title: &str, description: &str, queries: &[Query]) -> Self {
        let mut panel = Self::new("table", title, description, queries);
        panel.json["transformations"] = json!([{"id": "merge", "options": {}}]);
        panel.json["options"] = json!({"showHeader": true, "cellHeight": "sm"});
        panel
    }

    /// A histogram over time.
    pub fn heatmap(title: &str, description: &str, query: Query) -> Self {
        let mut panel = Self::new("heatmap", title, description, &[query]);
        panel.json["options"] = json!({
            "calculate": false,
            "cellGap": 0,
            "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": true},
            "yAxis": {"unit": "s"},
            "tooltip": {"mode": "single", "yHistogram": true},
            "legend": {"show": true},
        });
        panel
    }

    /// Sets the unit, in Grafana's names.
    pub fn unit(mut self, unit: &str) -> Self {
        self.json["fieldConfig"]["defaults"]["unit"] = json!(unit);
        self
    }

    /// Sets the range of the axis.
    pub fn axis(mut self, min: f64, max: Option<f64>) -> Self {
        let defaults = &mut self.json["fieldConfig"]["defaults"];
        defaults["min"] = json!(min);
        if let Some(max) = max {
            defaults["max"] = json!(max);
        }
        self
    }

    /// Sets an axis with powers of two.
    pub fn logarithmic(mut self) -> Self {
        self.json["fieldConfig"]["defaults"]["custom"]["scaleDistribution"] =
            json!({"type": "log", "log": 2});
        self
    }

    /// Colours values from `warning` and from `critical` on.
    pub fn thresholds(mut self, warning: f64, critical: f64) -> Self {
        let defaults = &mut self.json["fieldConfig"]["defaults"];
        defaults["thresholds"] = json!({"mode": "absolute", "steps": [
            {"color": "green", "value": null},
            {"color": "orange", "value": warning},
            {"color": "red", "value": critical},
        ]});
        if self.json["type"] == "timeseries" {
            self.json["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] =
                json!({"mode": "line"});
        }
        self
    }

    /// Draws the line called `upper` and fills down to the one called `lower`.
    pub fn band(mut self, lower: &str, upper: &str) -> Self {
        let of = |name: &str, properties: Value| {
            json!({
                "matcher": {"id": "byName", "options": name},
                "properties": properties,
            })
        };
        self.json["fieldConfig"]["overrides"] = json!([
            of(lower, json!([{"id": "custom.lineWidth", "value": 0}])),
            of(
                upper,
                json!([
                    {"id": "custom.lineWidth", "value": 0},
                    {"id": "custom.fillOpacity", "value": 20},
                    {"id": "custom.fillBelowTo", "value": lower},
                ])
            ),
        ]);
        self
    }

    /// Titles and units of a table's columns, by the column's name; `None`
    /// hides it. Every row links to the service's dashboard.
    pub fn columns(mut self, columns: &[(&str, Option<(&str, &str)>)]) -> Self {
        let overrides = columns.iter().map(|(name, shown)| {
            let properties = match shown {
                Some((title, unit)) => json!([
                    {"id": "displayName", "value": title},
                    {"id": "unit", "value": unit},
                ]),
                None => json!([{"id": "custom.hidden", "value": true}]),
            };
            json!({"matcher": {"id": "byName", "options": name}, "properties": properties})
        });
        self.json["fieldConfig"]["overrides"] = overrides.collect();
        self.json["fieldConfig"]["defaults"]["links"] = json!([{
            "title": "This service",
            "url": "/d/honeyguide-service?${datasource:queryparam}\
                    &var-service=${__data.fields.service}&var-signal=${__data.fields.signal}\
                    &var-objective=${__data.fields.objective}&${__url_time_range}",
        }]);
        self
    }

    /// Sets width (of 24) and height.
    pub fn size(mut self, width: u64, height: u64) -> Self {
        self.width = width;
        self.height = height;
        self
    }

    /// A heading over the panels that follow.
    pub fn row(title: &str) -> Self {
        Self {
            json: json!({"type": "row", "title": title, "collapsed": false, "panels": []}),
            width: COLUMNS,
            height: 1,
        }
    }
}

/// A variable that takes the values of a label.
pub fn label(name: &str, series: &str, label: &str) -> Value {
    let query = format!("label_values({series}, {label})");
    json!({
        "type": "query",
        "name": name,
        "datasource": datasource(),
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "includeAll": false,
        "multi": false,
    })
}

/// A variable with fixed values, the first of which is chosen.
pub fn choice(name: &str, values: &[&str], chosen: &str) -> Value {
    json!({
        "type": "custom",
        "name": name,
        "query": values.join(","),
        "current": {"text": chosen, "value": chosen},
        "includeAll": false,
        "multi": false,
    })
}

/// A dashboard of `panels`, set from left to right and from top to bottom.
pub fn dashboard(uid: &str, title: &str, variables: Vec<Value>, panels: Vec<Panel>) -> Value {
    let mut all = vec![json!({
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "refresh": 1,
    })];
    all.extend(variables);
    json!({
        "uid": uid,
        "title": title,
        "tags": ["honeyguide"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": all},
        "links": [{
            "type": "dashboards", "title": "Honeyguide", "tags": ["honeyguide"],
            "asDropdown": true, "includeVars": true, "keepTime": true,
        }],
        "panels": placed(panels),
    })
}

fn placed(panels: Vec<Panel>) -> Vec<Value> {
    let (mut x, mut y, mut line_height) = (0, 0, 0);
    let mut placed = Vec::new();
    for (number, panel) in panels.into_iter().enumerate() {
        if x + panel.width > COLUMNS {
            x = 0;
            y += line_height;
            line_height = 0;
        }
        let mut json = panel.json;
        json["id"] = json!(number + 1);
        json["gridPos"] = json!({"x": x, "y": y, "w": panel.width, "h": panel.height});
        placed.push(json);
        x += panel.width;
        line_height = line_height.max(panel.height);
    }
    placed
}
