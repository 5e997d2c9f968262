#![allow(missing_docs, clippy::all, unused)]
use honeyguide_evaluation::{baseline::*, bizitobs::*, score::*};
use std::collections::VecDeque;
fn leads(h: usize, f: f64) -> Vec<usize> {
    let mut v = vec![]; let mut x = 1f64;
    while (x as usize) < h { if v.last() != Some(&(x as usize)) { v.push(x as usize);} x = (x*f).max(x+1.0); }
    v.push(h); v
}
const NE: usize = 19;
fn env(n:&str,d:f64)->f64{ std::env::var(n).ok().and_then(|v|v.parse().ok()).unwrap_or(d) }
fn season_mean(y:&[f64], t:usize, h:isize, p:usize, back:usize, smooth:usize)->f64{
    let first = if h<=0 {1} else {((h as usize)+p-1)/p};
    let (mut s,mut w)=(0.0,0.0);
    for b in first..first+back { 
        let c = t as isize + h - (b*p) as isize;
        for d in -(smooth as isize)..=(smooth as isize) { let i=c+d; if i>=0 && i<=t as isize { s+=y[i as usize]; w+=1.0; } }
    }
    if w>0.0 {s/w} else {f64::NAN}
}

struct Lv { lv:Vec<Vec<f64>>, d:Vec<Vec<[f64;3]>> }
fn prof(y:&[f64],t:usize,h:isize,k:usize,p1:usize,p2:usize)->f64{ match k {0=>season_mean(y,t,h,p1,1,0),1=>season_mean(y,t,h,p1,4,1),2=>season_mean(y,t,h,p2,1,0),_=>season_mean(y,t,h,p2,4,1)} }
fn lv(y:&[f64],p1:usize,p2:usize)->Lv{
    let spans=[3.0, 18.0, 90.0].map(|x:f64| (-1.0/x).exp());
    let lv=spans.iter().map(|a|{let mut m=y[0]; y.iter().map(|v|{m=a*m+(1.0-a)*v; m}).collect()}).collect();
    let sp=[env("S0",2.0),env("S1",12.0),env("S2",90.0)].map(|x:f64| (-1.0/x).exp());
    let d=(0..4).map(|k|{ let mut m=[0.0;3]; let mut w=[0.0;3]; (0..y.len()).map(|t|{ if k>=2&&p2==0 {return [f64::NAN;3];} let s=prof(y,t,0,k,p1,p2); if s.is_nan(){return [f64::NAN;3];} for i in 0..3 { w[i]=w[i]*sp[i]+1.0; m[i]+=(y[t]-s-m[i])/w[i]; } m}).collect()}).collect();
    Lv{lv,d}
}
fn experts(y:&[f64], l:&Lv, t:usize, h:usize, p1:usize, p2:usize)->[f64;NE]{
    let mut e=[f64::NAN;NE];
    e[0]=y[t]; e[1]=l.lv[0][t]; e[2]=l.lv[2][t];
    for k in 0..4 { if k>=2&&p2==0 {continue;} let s=prof(y,t,h as isize,k,p1,p2); let d=l.d[k][t]; e[3+4*k]=s; for i in 0..3 { e[4+4*k+i]=s+d[i]; } }
    for i in 3..NE { if e[i].is_nan() { e[i]= if i>=11 {e[i-8]} else {y[t]} } }
    e
}
#[derive(Clone)]
struct Bucket { h:usize, a:Vec<f64>, b:Vec<f64>, loss:[f64;NE], lw:f64, w:[f64;NE], res:Vec<(f64,f64)>, scale:[f64;3], sa:[[f64;3];3], sb:[f64;3], fl:VecDeque<(usize,[f64;NE],f64,[f64;3],f64)>, n:f64, g:f64, gw:f64, msp:f64, unit:f64 }
fn solve(a:&[f64], b:&[f64], n:usize)->Vec<f64>{ // cholesky
    let mut l=a.to_vec();
    for j in 0..n { for k in 0..j { let v=l[j*n+k]; for i in j..n { l[i*n+j]-=l[i*n+k]*v; } } let d=l[j*n+j].max(1e-12).sqrt(); for i in j..n { l[i*n+j]/=d; } }
    let mut x=b.to_vec();
    for i in 0..n { for k in 0..i { x[i]-=l[i*n+k]*x[k]; } x[i]/=l[i*n+i]; }
    for i in (0..n).rev() { for k in i+1..n { x[i]-=l[k*n+i]*x[k]; } x[i]/=l[i*n+i]; }
    x
}
fn spread(e:&[f64;NE], w:&[f64;NE], m:f64)->f64 { let mut s=0.0; let mut ws=0.0; for i in 0..NE { s+=w[i].abs()*(e[i]-m).abs(); ws+=w[i].abs(); } s/ws.max(1e-9) }
fn feats(e:&[f64;NE], ewa:&[f64;NE], m:f64, rho:f64, msp:f64)->[f64;3]{ [1.0, rho, (spread(e,ewa,m)/msp.max(1e-9)).min(8.0)] }
fn wts(b:&Bucket,cred:&[f64;NE])->[f64;NE]{ let mut e=b.ewa(); let mut s=0.0; for i in 0..NE { e[i]*=cred[i]; s+=e[i]; } for i in 0..NE { e[i]/=s; } let mut w=[0.0;NE]; let sd:f64=b.w.iter().sum(); for i in 0..NE { w[i]=b.w[i]+e[i]*(1.0-sd); } w }
impl Bucket {
    fn new(h:usize)->Self{ Bucket{h,a:vec![0.0;NE*NE],b:vec![0.0;NE],loss:[0.0;NE],lw:0.0,w:[0.0;NE],res:vec![],scale:[0.3,0.4,0.3],sa:[[0.0;3];3],sb:[0.0;3],fl:VecDeque::new(),n:0.0,g:0.0,gw:0.0,msp:0.0,unit:0.0} }
    fn ewa(&self)->[f64;NE]{ let pw=env("POW",4.0); let mut w=[0.0;NE]; let m=self.loss.iter().cloned().fold(f64::MAX,f64::min).max(1e-9); let mut s=0.0; for i in 0..NE { w[i]=(m/self.loss[i].max(1e-9)).powf(pw); s+=w[i]; } for i in 0..NE { w[i]/=s; } w }
    fn settle(&mut self, e:&[f64;NE], m:f64, f:&[f64;3], s:f64, y:f64, keep:f64, unit:f64, t:usize){
        let hb=if (self.h as f64)<env("HL",80.0) {env("HUBS",6.0)} else {env("HUB",2.0)}; let z=(y-m).abs()/(hb*self.g.max(unit)); let wt=if self.gw>20.0 {1.0/(1.0+z*z)} else {1.0}; let z2=(y-m).abs()/s.max(1e-9);
        let k0=keep; let keep=1.0-(1.0-keep)*wt; 
        self.lw=self.lw*keep+wt;
        for i in 0..NE { self.loss[i]+=wt*((e[i]-y).abs()-self.loss[i])/self.lw; }
        let c=e[0]; // base
        for v in self.a.iter_mut() { *v*=keep; } for v in self.b.iter_mut(){*v*=keep;}
        let mut mm=self.ewa(); let base:f64=(0..NE).map(|i|mm[i]*e[i]).sum();
        for i in 0..NE { let xi=e[i]-base; self.b[i]+=wt*xi*(y-base); for j in 0..=i { self.a[i*NE+j]+=wt*xi*(e[j]-base); } }
        let r=(y-m).abs();
        self.gw=self.gw*keep+wt; let rc=if self.gw>20.0 {r.min(env("CLIP",3.0)*self.g+unit)} else {r}; self.g+=wt*(rc-self.g)/self.gw;
        let rn=(r/self.g.max(1e-9)).min(6.0);
        for i in 0..3 { self.sb[i]=self.sb[i]*keep+wt*f[i]*rn; for j in 0..3 { self.sa[i][j]=self.sa[i][j]*keep+wt*f[i]*f[j]; } }
        let hq=if (self.h as f64)<env("HL",80.0) {env("HUBS",6.0)} else {env("HUBQ",3.0)}; let zq=r/(hq*s); self.res.push((1.0/(1.0+zq*zq),((y-m)/s).clamp(-12.0,12.0))); self.unit=unit;
    }
    fn resolve(&mut self, ridge:f64){
        let ewa=self.ewa();
        let mut a=self.a.clone(); let tr:f64=(0..NE).map(|i|a[i*NE+i]).sum::<f64>()/NE as f64;
        let neff=self.lw; let stride=(self.h/12).max(1) as f64; let indep=neff*stride/(self.h as f64); let rr=ridge+env("R1",100.0)/indep.max(1e-3); for i in 0..NE { for j in 0..i { a[j*NE+i]=a[i*NE+j]; } a[i*NE+i]+=rr*tr+1e-9+0.1*self.unit*self.unit*(1.0+self.lw*0.01); }
        let d=solve(&a,&self.b,NE);
        // y = base + sum d_i (e_i - base)
        let sd:f64=d.iter().sum();
        for i in 0..NE { self.w[i]=d[i]; }
        // scale: nonneg coordinate descent with ridge to keep
        let prior=[0.3,0.4,0.3]; let rs=0.02+env("RS",0.5)/indep; let mut x=self.scale; for _ in 0..30 { for i in 0..3 { let mut g=self.sb[i]+self.sa[i][i]*rs*prior[i];  for j in 0..3 { if j!=i { g-=self.sa[i][j]*x[j]; } } x[i]=(g/(self.sa[i][i]*(1.0+rs)+1e-12)).max(0.0); } }
        if x.iter().sum::<f64>()>0.0 { self.scale=x; }
    }
    fn quant(&self, q:&[f64], n:usize)->Vec<f64>{ // recent residuals weighted
let k=self.res.len().min(n); let mut r:Vec<(f64,f64)>=self.res[self.res.len()-k..].iter().enumerate().map(|(i,x)|(x.1,x.0*(-((k-1-i) as f64)/(env("QM",0.5)*n as f64)).exp())).collect(); r.sort_by(|a,b|a.0.total_cmp(&b.0));
        let pn=env("PN",12.0); let z=[-2.8,-1.6,-1.05,-0.66,-0.32,0.0,0.32,0.66,1.05,1.6,2.8]; let nn:f64=r.iter().map(|x|x.1).sum();
        q.iter().zip(z).map(|(q,z)|{ if r.is_empty(){return z}; let mut c=0.0; let mut v=r[r.len()-1].0; let mut pv=r[0].0; let mut pc=0.0; for x in &r { let mid=c+0.5*x.1; if mid>=q*nn { let f=if mid>pc {(q*nn-pc)/(mid-pc)} else {1.0}; v=pv+(x.0-pv)*f.clamp(0.0,1.0); break; } pc=mid; pv=x.0; c+=x.1; } v*nn/(nn+pn)+z*pn/(nn+pn)}).collect()
    }
}
fn nowerr(l:&Lv,t:usize)->[f64;NE]{ let mut r=[0.0;NE]; r[2]=l.lv[0][t]-l.lv[2][t]; for k in 0..4 { let d=l.d[k][t]; if d[0].is_nan() {continue;} r[3+4*k]=d[0]; r[5+4*k]=d[0]-d[1]; r[6+4*k]=d[0]-d[2]; } r }
fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let test = std::env::args().nth(2).as_deref()==Some("TEST");
    let (ridge, mem, nres, bf)=(env("RIDGE",0.1),env("MEM",8.0),env("NRES",400.0) as usize, env("BF",1.35));
    let mut rel=vec![]; let mut relm=vec![];
    for d in Dataset::ALL {
        let series = d.load(&dir).unwrap();
        let n = series[0].values.len();
        let first_test = Term::ALL.iter().map(|t| Configuration{dataset:d,term:*t}.origins(n)[0]).min().unwrap();
        let end = if test {n} else {first_test};
        let p1=d.season(); let p2 = match d {Dataset::Application=>0, _=>7*p1};
        let hmax=Configuration{dataset:d,term:Term::Long}.horizon();
        let ls=leads(hmax,bf);
        let plan:Vec<Vec<usize>>=Term::ALL.iter().map(|t|{ let c=Configuration{dataset:d,term:*t}; if test {c.origins(n)} else { let h=c.horizon(); let first=if p2==0 {end/4} else {(end*4/10).min(end-h)}; (0..20).map(|i| first+(end-h-first)*i/19).collect()} }).collect();
        let mut sn=vec![Score::default();3]; let mut us=sn.clone(); let mut per:Vec<Vec<(f64,f64)>>=vec![vec![];3];
        for s in &series {
            let y=&s.values[..end];
            let lv=lv(y,p1,p2);
            let mut bs:Vec<Bucket>=ls.iter().map(|h|Bucket::new(*h)).collect();
            let lo=if y.iter().cloned().fold(f64::MAX,f64::min)>=0.0 {0.0} else {f64::MIN};
            let nb=if p2>0 {168} else {36}; let pp=p1.max(p2); let bin=|t:usize| (t%pp)*nb/pp; let mut rho=vec![(0.0f64,0.0f64);nb]; let rh=|rho:&Vec<(f64,f64)>,t:usize|{let b=bin(t); let (mut s,mut w)=(env("RP",3.0),env("RP",3.0)); for (d,k) in [(0,1.0),(1,0.5),(nb-1,0.5)] { let (a,c)=rho[(b+d)%nb]; s+=k*a; w+=k*c; } s/w}; let mut nu=[0.0;NE]; let mut nw=0.0; let mut un0=1e-3; let mut unit=1e-9; let mut uw=0.0; let (mut s1,mut u1)=(vec![],vec![]); for _ in 0..3 { s1.push(Score::default()); u1.push(Score::default()); }
            for t in 1..y.len() {
                let ne=nowerr(&lv,t); let mut cred=[1.0;NE]; { let kk=(-1.0/(4.0*pp as f64)).exp(); nw=nw*kk+1.0; for i in 0..NE { let u=nu[i]; let x=ne[i].abs(); let x2=if nw>20.0 {x.min(4.0*u+un0)} else {x}; let d=x/(env("C",1e9)*u+0.3*un0+1e-9); cred[i]=(1.0+d*d).powf(-env("CP",2.0)); nu[i]+=(x2-u)/nw; } } let k=1.0f64.min(0.999); un0=unit; uw=uw*k+1.0; unit+=((y[t]-y[t-1]).abs()-unit)/uw; let un=unit.max(1e-3);
                for b in bs.iter_mut() {
                    while b.fl.front().is_some_and(|x|x.0<=t) { let (due,e,m,f,sc)=b.fl.pop_front().unwrap(); let stride=(b.h/12).max(1) as f64; let keep=(-(stride)/(mem*p1.max(p2) as f64)).exp(); let k2=(-(stride)/(env("RM",6.0)*pp as f64)).exp(); let rn=((y[t]-m).abs()/b.g.max(1e-9)).min(6.0); if b.gw>8.0 { let q=&mut rho[bin(t)]; let kk=0.98; q.0=q.0*kk+rn/ls.len() as f64; q.1=q.1*kk+1.0/ls.len() as f64; } b.msp+=(spread(&e,&wts(b,&cred),m)-b.msp)*(1.0/(b.gw+1.0)); b.settle(&e,m,&f,sc,y[t],keep,un,t); b.n+=1.0; if (b.n as usize)%4==0 || b.n<20.0 { b.resolve(ridge);} }
                    let stride=(b.h/12).max(1);
                    if t%stride==0 && t>8 { let e=experts(y,&lv,t,b.h,p1,p2); let ew=wts(b,&cred); let m:f64=(0..NE).map(|i|ew[i]*e[i]).sum(); let f=feats(&e,&ew,m,rh(&rho,t+b.h),b.msp); let sc:f64=b.g.max(0.05*un)*(0..3).map(|i|b.scale[i]*f[i]).sum::<f64>().max(0.02); b.fl.push_back((t+b.h,e,m,f,sc)); }
                }
                let o=t+1;
                for (ti,os) in plan.iter().enumerate() { if os.contains(&o) {
                    let h=Configuration{dataset:d,term:Term::ALL[ti]}.horizon();
                    let qs:Vec<Vec<f64>>=bs.iter().map(|b|b.quant(&[0.025,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.975],nres)).collect();
                    let mut path=vec![];
                    for k in 1..=h {
                        let j=ls.partition_point(|x|*x<k); let (i,j,f)= if ls[j]==k {(j,j,0.0)} else {(j-1,j,((k as f64).ln()-(ls[j-1] as f64).ln())/((ls[j] as f64).ln()-(ls[j-1] as f64).ln()))};
                        let e=experts(y,&lv,t,k,p1,p2);
                        let (wi,wj)=(wts(&bs[i],&cred),wts(&bs[j],&cred)); let mut w=[0.0;NE]; for x in 0..NE { w[x]=wi[x]*(1.0-f)+wj[x]*f; }
                        let m:f64=(0..NE).map(|x|w[x]*e[x]).sum();
                        let scf=|b:&Bucket|{let ff=feats(&e,&wts(b,&cred),m,rh(&rho,t+k),b.msp); b.g.max(0.05*un)*(0..3).map(|i|b.scale[i]*ff[i]).sum::<f64>().max(0.02)};
                        let sc=scf(&bs[i])*(1.0-f)+scf(&bs[j])*f;
                        let q:Vec<f64>=(0..11).map(|x|(m+sc*(qs[i][x]*(1.0-f)+qs[j][x]*f)).max(lo)).collect();
                        path.push(Quantiles{at:std::array::from_fn(|x|q[x+1]),ends_95:[q[0],q[10]]});
                    }
                    let hist=&y[..o]; let act=&s.values[o..o+h];
                    s1[ti].add(&Score::of(hist,p1,&seasonal_naive(hist,p1,h),act));
                    let z=Score::of(hist,p1,&path,act); if std::env::var("DBG").is_ok() { println!("{} {} o {} crps {:.4} sn {:.4} mase {:.2} sn {:.2} c80 {:.2}  ",d.name(),Term::ALL[ti].name(),o,z.crps(),Score::of(hist,p1,&seasonal_naive(hist,p1,h),act).crps(),z.mase(),Score::of(hist,p1,&seasonal_naive(hist,p1,h),act).mase(),z.coverage_80()); if std::env::var("DBG").as_deref()==Ok("2") { for j in [0,5,11,15,19,21,23] { if j<bs.len() {println!("    h {} g {:.1} n {} w {:?} q {:?} path {:?}",bs[j].h,bs[j].g,bs[j].n,bs[j].w.map(|x|(x*100.0).round()),qs[j].iter().map(|x|(x*10.0).round()/10.0).collect::<Vec<_>>(), path[(bs[j].h-1).min(h-1)].at.map(|x|x.round()));} } } } if std::env::var("EXP").is_ok() { print!("X {} {} o {} sn {:.4} us {:.4}:",Term::ALL[ti].name(),s.name,o,Score::of(hist,p1,&seasonal_naive(hist,p1,h),act).crps(),z.crps()); for i in 0..11 { let f:Vec<Quantiles>=(1..=h).map(|k|Quantiles::point(experts(y,&lv,t,k,p1,p2)[i])).collect(); print!(" {:.4}",Score::of(hist,p1,&f,act).crps()); } println!(); } u1[ti].add(&z);
                } }
            }
            for i in 0..3 { per[i].push((u1[i].mase()/s1[i].mase(),u1[i].crps()/s1[i].crps())); sn[i].add(&s1[i]); us[i].add(&u1[i]); }
        }
        for i in 0..3 {
            println!("{:24} mase {:.3} rel {:.3} crps {:.4} rel {:.3} c80 {:.2} c95 {:.2} per {}", Configuration{dataset:d,term:Term::ALL[i]}.name(), us[i].mase(), us[i].mase()/sn[i].mase(), us[i].crps(), us[i].crps()/sn[i].crps(), us[i].coverage_80(), us[i].coverage_95(), per[i].iter().map(|x|format!("{:.2}/{:.2}",x.0,x.1)).collect::<Vec<_>>().join(" "));
            rel.push(us[i].crps()/sn[i].crps()); relm.push(us[i].mase()/sn[i].mase());
        }
    }
    println!("ALL crps {:.4} app {:.4} mase {:.4}", geometric_mean(rel.iter().cloned()), geometric_mean(rel[..3].iter().cloned()), geometric_mean(relm.iter().cloned()));
}
