"""What an agent learns of a call from the request, with names and values of all kinds."""

import time
from urllib.parse import unquote

from mediad.ai.connect import CallInfo, DialOut
from mediad.ai.peer import AgentPeer
from mediad.ai.socket import AgentSocket
from mediad.config import Ai
from mediad.metrics import Metrics
from tests.fakes.agent import AgentConnection, FakeAgent


async def test_request_carries_the_call_quoted() -> None:
    async def script(agent: AgentConnection) -> None:
        await agent.ws.wait_closed()

    async with FakeAgent(script) as agent:
        settings = Ai(
            agent_url=(f"{agent.url}/{{call_id}}?from={{from}}&to={{to}}",),
            headers={"Authorization": "Bearer x"},
        )
        call = CallInfo("id-1", "+49 30/1", "Büro & Co", {"queue": "sales\r\nEvil: 1", "a b": "c"})
        metrics = Metrics()
        dial = DialOut(settings, call, metrics, None)
        socket = await dial.connect(
            lambda: AgentSocket(
                lambda: None,
                lambda message: False,
                lambda started: None,
                AgentPeer(metrics),
                5.0,
                None,
            ),
            time.monotonic() + 5,
        )
        (connection,) = agent.connections
        request = connection.ws.request
        assert request is not None
        assert request.path == "/id-1?from=%2B49%2030%2F1&to=B%C3%BCro%20%26%20Co"
        assert request.headers["Authorization"] == "Bearer x"
        assert request.headers["X-Mediad-Call-Id"] == "id-1"
        assert unquote(request.headers["X-Mediad-From"]) == "+49 30/1"
        assert unquote(request.headers["X-Mediad-To"]) == "Büro & Co"
        assert unquote(request.headers["X-Mediad-Var-queue"]) == "sales\r\nEvil: 1"
        assert request.headers["X-Mediad-Var-a%20b"] == "c"
        assert "Evil" not in request.headers
        socket.close()
        await socket.closed()
