// What the page asks the server for.

/** A refusal, in the server's words. */
export class Refusal extends Error {
  constructor(status, { code = "failed", message = "The server failed", mend = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, mend });
  }
}

const KEY = "retinue-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

async function ask(address, { headers = {}, ...rest } = {}) {
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let answer;
  try {
    answer = await fetch(address, { ...rest, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { code: "unreachable", message: "The server does not answer",
      mend: "check that it is running, then try again" });
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Refusal(answer.status, told.error);
  }
  return answer;
}

const query = (values) => new URLSearchParams(values).toString();

export const models = async () => (await (await ask("/v1/models")).json()).models;

export const samples = async () => (await (await ask("/samples")).json()).samples;

export const sample = async (number, signal) => (await ask(`/samples/${number}`, { signal })).blob();

/** The answer for a picture, whose own bytes are sent; and what it took. */
export async function predict(picture, model, options, signal) {
  const start = performance.now();
  const answer = await ask(`/v1/predict?${query({ model, ...options })}`, {
    method: "POST", body: picture, signal,
    headers: { "Content-Type": picture.type.startsWith("image/") ? picture.type : "application/octet-stream" },
  });
  const told = await answer.json();
  return { ...told.results[0], version: told.version, milliseconds: performance.now() - start };
}

/** The explanation: a picture to lay over, and what it is of. */
export async function explain(picture, model, target, signal) {
  const answer = await ask(`/v1/explain?${query({ model, ...(target && { target }) })}`, {
    method: "POST", body: picture, signal,
    headers: { "Content-Type": picture.type.startsWith("image/") ? picture.type : "application/octet-stream" },
  });
  const named = (answer.headers.get("X-Target") ?? "").replace(/^UTF-8''/, "");
  return {
    overlay: await createImageBitmap(await answer.blob()),
    target: decodeURIComponent(named),
    method: answer.headers.get("X-Method") ?? "",
  };
}
