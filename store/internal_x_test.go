package store_test
import ("testing";"time")
func TestX(t *testing.T){ for _,u:=range []string{"s3://b?endpoint=http://127.0.0.1:1&use_path_style=true","s3://b?region=us-east-1&endpoint=http://127.0.0.1:1&use_path_style=true"} { s,err:=openOnly(t,u); t.Log(u,s!=nil,err); s=openStore(t,u); a:=time.Now(); err=s.Ping(t.Context()); t.Log(time.Since(a),err) } }
