#![allow(missing_docs, clippy::all, unused)]
use honeyguide_evaluation::{baseline::*, bizitobs::*, score::*};
use honeyguide_models::forecaster::Forecaster;
fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let test = std::env::args().nth(2).as_deref()==Some("TEST");
    let mut rel=vec![]; let mut relm=vec![];
    for d in Dataset::ALL {
        let series = d.load(&dir).unwrap();
        let n = series[0].values.len();
        let first_test = Term::ALL.iter().map(|t| Configuration{dataset:d,term:*t}.origins(n)[0]).min().unwrap();
        let end = if test {n} else {first_test};
        let p1=d.season();
        let hmax=Configuration{dataset:d,term:Term::Long}.horizon();
        let plan:Vec<Vec<usize>>=Term::ALL.iter().map(|t|{ let c=Configuration{dataset:d,term:*t}; if test {c.origins(n)} else { let h=c.horizon(); let first=if p1==360 {end/4} else {(end*4/10).min(end-h)}; (0..20).map(|i| first+(end-h-first)*i/19).collect()} }).collect();
        let mut sn=vec![Score::default();3]; let mut us=sn.clone();
        let ss:Vec<usize>=[300,3600,86400,604800].iter().filter(|s|*s%d.step_secs()==0).map(|s|(s/d.step_secs()) as usize).filter(|s|*s>=4).collect();
        for s in &series {
            let y=&s.values[..end]; let mut f=Forecaster::new(&ss,hmax);
            for (t,v) in y.iter().enumerate() {
                f.observe(*v); let o=t+1;
                for (ti,os) in plan.iter().enumerate() { if os.contains(&o) {
                    let h=Configuration{dataset:d,term:Term::ALL[ti]}.horizon();
                    let path:Vec<Quantiles>=f.path(h,[0.025,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.975]).into_iter().map(|q|Quantiles{at:std::array::from_fn(|i|q[i+1]),ends_95:[q[0],q[10]]}).collect();
                    let hist=&y[..o]; let act=&s.values[o..o+h];
                    sn[ti].add(&Score::of(hist,p1,&seasonal_naive(hist,p1,h),act)); us[ti].add(&Score::of(hist,p1,&path,act));
                }}
            }
        }
        for i in 0..3 { println!("{:24} mase {:.3} rel {:.3} crps {:.4} rel {:.3} c80 {:.2} c95 {:.2}", Configuration{dataset:d,term:Term::ALL[i]}.name(), us[i].mase(), us[i].mase()/sn[i].mase(), us[i].crps(), us[i].crps()/sn[i].crps(), us[i].coverage_80(), us[i].coverage_95());
            rel.push(us[i].crps()/sn[i].crps()); relm.push(us[i].mase()/sn[i].mase()); }
    }
    println!("ALL crps {:.4} app {:.4} mase {:.4}", geometric_mean(rel.iter().cloned()), geometric_mean(rel[..3].iter().cloned()), geometric_mean(relm.iter().cloned()));
}
