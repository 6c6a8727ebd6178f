// The search of a page that is opened from a folder: browsers start no Worker from file://, so a hidden frame stands in for one.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      const answer = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      this.waiting = []
      inside.postMessage = data => setTimeout(answer, 0, data)
      const load = source => new Promise(done => {
        const script = inside.document.createElement("script")
        script.src = source
        script.onload = script.onerror = done
        inside.document.body.append(script)
      })
      inside.importScripts = (...urls) => urls.reduce((before, source) => before.then(() => load(source)), Promise.resolve())
      load(url).then(() => {
        const waiting = this.waiting
        this.waiting = undefined
        waiting.forEach(data => this.postMessage(data))
      })
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data)
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }
    terminate() {
      this.frame.remove()
    }
  }
}
