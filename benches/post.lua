-- What a page sends: one page view as JSON, about 900 bytes. Prints one line for the bench to read.
wrk.method = "POST"
wrk.headers["Content-Type"] = "text/plain;charset=UTF-8"
wrk.headers["User-Agent"] = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
wrk.headers["Accept-Language"] = "en-GB,en;q=0.9"
wrk.headers["Referer"] = "https://shop.example.com/products/lamps?utm_source=newsletter"
wrk.body = [[{"vid":"14fb0860-b4bf-11e9-8971-7b80435315ac","sid":"0198f3a0-5c1e-7e11-8a0c-2b6de1d5f7aa","ename":"page_view","etyp":"page","url":"https://shop.example.com/products/lamps/desk?utm_source=newsletter&utm_medium=email&utm_campaign=autumn&utm_content=hero&colour=brass","last":"https://shop.example.com/products/lamps","app":"shop","rel":"2026.11.3","ptyp":"product","tz":"Europe/London","device":"desktop","os":"macos","w":1440,"h":900,"cflags":1024,"xid":"hero-test","ver":3,"duration":1834,"seq":17,"params":{"sku":"LAMP-0042","price":79.5,"currency":"GBP","in_stock":true,"tags":["desk","brass","led"],"variant":{"colour":"brass","size":"m"},"list":"autumn-favourites","position":4,"title":"Brass desk lamp with dimmer | Example Shop","scroll":62,"experiment_arm":"b","member":false,"basket_items":2,"basket_value":118.0,"language":"en-GB","theme":"dark","viewport":"lg"}}]]

done = function(summary, latency, requests)
  io.write(string.format("RESULT %.1f %.3f %.3f %d %d\n",
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
