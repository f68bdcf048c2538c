// 200 requests of 100 KB by one of Node's HTTP clients; prints how often each status came. See tests/clients/http.rs.
const http = require("node:http");

const REQUESTS = 200;
const AT_ONCE = 16;
const body = "x".repeat(100_000);
const url = process.env.BASE_URL + "/chat/completions";
const headers = { authorization: "Bearer " + process.env.KEY, "content-type": "application/json" };

const clients = {
  axios() {
    const axios = require("axios");
    const httpAgent = new http.Agent({ keepAlive: true });
    const options = { headers, httpAgent, validateStatus: () => true };
    return async () => (await axios.post(url, body, options)).status;
  },
  undici() {
    const { Agent, request } = require("undici");
    const dispatcher = new Agent({ connections: AT_ONCE });
    return async () => {
      const response = await request(url, { method: "POST", headers, body, dispatcher });
      await response.body.dump();
      return response.statusCode;
    };
  },
  fetch() {
    const { Agent, fetch } = require("undici");
    const dispatcher = new Agent({ connections: AT_ONCE });
    return async () => {
      const response = await fetch(url, { method: "POST", headers, body, dispatcher });
      await response.text();
      return response.status;
    };
  },
};

async function main() {
  const post = clients[process.argv[2]]();
  const counts = {};
  let left = REQUESTS;
  const worker = async () => {
    while (left-- > 0) {
      const status = await post();
      counts[status] = (counts[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  console.log(JSON.stringify(counts));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
