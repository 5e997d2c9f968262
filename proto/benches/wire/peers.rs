//! The same histograms as others send them: nothing but what they need, so
//! that the comparison favours them.

use honeyguide_proto::{
    ServiceId,
    batch::{Batch, SeriesWindow},
    native_histogram::NativeHistogram,
    otlp::ExponentialHistogram,
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram as OtlpHistogram,
        ExponentialHistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics,
        exponential_histogram_data_point::Buckets, metric::Data,
    },
    resource::v1::Resource,
};
use prost::Message;

/// One export request: a resource per service, a metric per signal.
pub fn otlp(batch: &Batch) -> Vec<u8> {
    let services = batch.services.iter().zip(0u32..);
    let resource_metrics = services.map(|(service, index)| {
        let series = batch.series.iter().filter(|one| one.service == index);
        ResourceMetrics {
            resource: Some(resource(service)),
            scope_metrics: vec![ScopeMetrics {
                metrics: series.map(|series| metric(batch, series)).collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }
    });
    let request = ExportMetricsServiceRequest {
        resource_metrics: resource_metrics.collect(),
    };
    request.encode_to_vec()
}

fn resource(service: &ServiceId) -> Resource {
    let value = AnyValue {
        value: Some(any_value::Value::StringValue(service.key())),
    };
    Resource {
        attributes: vec![KeyValue {
            key: "service.name".to_owned(),
            value: Some(value),
            ..KeyValue::default()
        }],
        ..Resource::default()
    }
}

fn metric(batch: &Batch, series: &SeriesWindow) -> Metric {
    let histogram = ExponentialHistogram::from(&batch.histogram(series));
    let point = ExponentialHistogramDataPoint {
        start_time_unix_nano: batch.header.window_start_ns,
        time_unix_nano: batch.header.window_end_ns(),
        count: histogram.count,
        sum: Some(histogram.sum),
        scale: histogram.scale,
        positive: Some(Buckets {
            offset: histogram.offset,
            bucket_counts: histogram.bucket_counts,
        }),
        max: histogram.max,
        ..ExponentialHistogramDataPoint::default()
    };
    Metric {
        name: series.signal.name().to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::ExponentialHistogram(OtlpHistogram {
            data_points: vec![point],
            aggregation_temporality: AggregationTemporality::Delta.into(),
        })),
        ..Metric::default()
    }
}

/// One scrape of one metric family with the labels service and signal.
pub fn prometheus(batch: &Batch) -> Vec<u8> {
    let metrics = batch.series.iter().map(|series| {
        let native = NativeHistogram::from(&batch.histogram(series));
        let span = |(offset, length)| BucketSpan { offset, length };
        PrometheusMetric {
            label: vec![
                label("service", &batch.services[series.service as usize].key()),
                label("signal", series.signal.name()),
            ],
            histogram: Some(PrometheusHistogram {
                sample_count: native.count,
                sample_sum: native.sum,
                schema: native.schema,
                positive_span: native.spans.into_iter().map(span).collect(),
                positive_delta: native.deltas,
            }),
        }
    });
    let family = MetricFamily {
        name: "latency_seconds".to_owned(),
        kind: HISTOGRAM,
        metric: metrics.collect(),
    };
    family.encode_length_delimited_to_vec()
}

fn label(name: &str, value: &str) -> LabelPair {
    LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// `MetricType.HISTOGRAM`.
const HISTOGRAM: i32 = 4;

/// The fields in use of `io.prometheus.client.MetricFamily`.
#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<PrometheusMetric>,
}

#[derive(Clone, PartialEq, Message)]
struct PrometheusMetric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<PrometheusHistogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct PrometheusHistogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}
